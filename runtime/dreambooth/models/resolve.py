"""From what the manifest says about the base model to a folder that can be loaded."""

import glob
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import dreambooth.models
from dreambooth.api.job import ModelRef
from dreambooth.errors import InfrastructureError, UserError
from dreambooth.models.files import check_json, check_weights, readable
from dreambooth.models.hub import HubRepo
from dreambooth.models.inventory import (
    INDEX,
    check_parts,
    choose_files,
    read_index,
    require_index,
)
from dreambooth.workspace.atomic import (
    disk_errors,
    link_or_copy,
    publish_dir_once,
    read_json,
    temporary_sibling,
    write_json,
    write_text,
)
from dreambooth.workspace.digest import digest_of, file_digest
from dreambooth.workspace.layout import Workspace

FIELD = "spec.model"
BUILTIN = Path(dreambooth.models.__file__).parent / "builtin"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ResolvedModel:
    """A complete diffusers folder with safetensors weights.

    Attributes:
        folder: Ready to load; never written to.
        name: For people: `emoji`, the path, or `owner/name`.
        revision: The commit of a hub model; of others the first twelve digits of `digest`.
        digest: SHA-256 over names and contents of the files that are used.
        pipeline: The class of diffusers' pipeline that it is.
    """

    folder: Path
    name: str
    revision: str
    digest: str
    pipeline: str


def resolve(
    ref: ModelRef,
    *,
    workspace: Path,
    manifest_dir: Path,
    on_checked: Callable[[], object] = lambda: None,
) -> ResolvedModel:
    """Finds the base model, downloading it once if it is on the hub.

    A hub model that is on the workspace needs no network if it was asked for by commit, and
    does without one if by tag or branch.

    Args:
        ref: Exactly one of `builtin`, `path` and `repo` is set.
        workspace: Holds the downloads; `path` is looked for here first,
        manifest_dir: and then here.
        on_checked: Called when the files are there and whole, while their digest is made, which
            takes long for large ones.

    Raises:
        UserError: If it is not there, not complete, a pickle, or of an unknown kind.
        InfrastructureError: If the hub does not answer or the disk refuses.
    """
    space = Workspace(workspace)
    if ref.builtin is not None:
        return _builtin(ref.builtin, space, on_checked)
    if ref.path is not None:
        return _local(ref.path, space, manifest_dir, on_checked)
    if ref.repo is not None:
        return _from_hub(ref.repo, ref.revision, space, on_checked)
    raise UserError(
        "there is no base model",
        field=FIELD,
        remedy="Give exactly one base model: builtin, path or repo.",
        reason="ModelNotFound",
    )


def _builtin(name: str, space: Workspace, on_checked: Callable[[], object]) -> ResolvedModel:
    folder = BUILTIN / name
    if "/" in name or not folder.is_dir():
        known = ", ".join(sorted(path.name for path in BUILTIN.iterdir() if path.is_dir()))
        raise UserError(
            f"there is no built-in model {name!r}",
            field=f"{FIELD}.builtin",
            remedy=f"Use one of: {known}.",
            reason="ModelNotFound",
        )
    files, pipeline = _check(folder, where=f"the built-in model {name}", field=FIELD)
    digest = _digest_beside(on_checked, folder, files, space)
    return ResolvedModel(folder, name, digest[:12], digest, pipeline)


def _local(
    path: str, space: Workspace, manifest_dir: Path, on_checked: Callable[[], object]
) -> ResolvedModel:
    field = f"{FIELD}.path"
    folder = _find(path, (space.root, manifest_dir), field)
    files, pipeline = _check(folder, where=path, field=field)
    digest = _digest_beside(on_checked, folder, files, space)
    if any(target != source for target, source in files.items()):
        # diffusers looks for the plain names; a folder of links has them.
        ready = space.models / f"local--{digest[:16]}"
        _publish(folder, files, ready)
        folder = ready
    return ResolvedModel(folder, path, digest[:12], digest, pipeline)


def _find(path: str, roots: tuple[Path, ...], field: str) -> Path:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(
            f"{path} leads out of the workspace",
            field=field,
            remedy='Give a path relative to the workspace or to the manifest, without "..".',
            reason="PathEscapes",
        )
    for root in roots:
        folder = root / relative
        with readable(path, field):
            if not folder.exists():
                continue
        if not folder.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{path} is a link that leads out of {root}",
                field=field,
                remedy="Copy the model there instead of linking to it.",
                reason="PathEscapes",
            )
        if folder.is_dir():
            return folder
        raise UserError(
            f"{path} is a file",
            field=field,
            remedy=f"Give the folder that has {INDEX} in it; a single-file checkpoint can be "
            "converted with diffusers.",
            reason="ModelNotFound",
        )
    raise UserError(
        f"there is no folder {path} in {' or '.join(dict.fromkeys(map(str, roots)))}",
        field=field,
        remedy="Put the model there, or correct the path.",
        reason="ModelNotFound",
    )


def _from_hub(
    name: str, revision: str | None, space: Workspace, on_checked: Callable[[], object]
) -> ResolvedModel:
    if revision is None:
        raise UserError(
            f"{name} is given without a revision",
            field=f"{FIELD}.revision",
            remedy="Say at which revision, best the full commit.",
            reason="InvalidModel",
        )
    cache = space.models / f"models--{name.replace('/', '--')}" / "ready"
    commit = revision if _COMMIT.fullmatch(revision) else None
    if commit is None or not (cache / commit).is_dir():
        commit = _update(HubRepo(name, revision, kind="model", field=FIELD), cache, space)
    folder = cache / commit
    files, pipeline = _check(folder, where=name, field=FIELD)
    digest = _digest_beside(on_checked, folder, files, space)
    return ResolvedModel(folder, name, commit, digest, pipeline)


def _update(repo: HubRepo, cache: Path, space: Workspace) -> str:
    """Makes the revision's files ready in `cache`; the commit that it is."""
    note = cache / ".revisions" / quote(repo.revision, safe="")
    try:
        commit, names = repo.list_files()
    except (InfrastructureError, UserError) as error:
        # The hub is out of reach, or forbidden: the commit that it was last time will do.
        if error.reason in ("HubUnreachable", "HubOffline") and note.is_file():
            known = note.read_text(encoding="utf-8").strip()
            if (cache / known).is_dir():
                return known
        raise
    if not (cache / commit).is_dir():
        _download(repo, commit, names, cache / commit, space)
    if commit != repo.revision:
        write_text(note, f"{commit}\n")
    return commit


def _download(
    repo: HubRepo, commit: str, names: Collection[str], ready: Path, space: Workspace
) -> None:
    require_index(names, where=repo.repo, field=FIELD)
    index = repo.download(commit, [INDEX], space.models) / INDEX
    layout = read_index(index.read_text(encoding="utf-8"), where=repo.repo, field=FIELD)
    files = choose_files(names, layout, where=repo.repo, field=FIELD)
    wanted = [glob.escape(source) for source in files.values()]
    snapshot = repo.download(commit, wanted, space.models)
    _publish(snapshot, files, ready)


def _publish(source: Path, files: Mapping[str, str], ready: Path) -> None:
    """Makes `ready` a folder of links to the files under the names they are wanted by."""
    if ready.is_dir():
        return
    temporary = temporary_sibling(ready)
    try:
        with disk_errors(ready):
            for target, name in files.items():
                (temporary / target).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy((source / name).resolve(), temporary / target)
        # Another job may be first with the very same content, and already read it.
        publish_dir_once(temporary, ready)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check(folder: Path, *, where: str, field: str) -> tuple[dict[str, str], str]:
    """The files to use, after a look at each that costs no reading of weights, and the pipeline."""
    names = [
        path.relative_to(folder).as_posix()
        for path in (*folder.glob("*"), *folder.glob("*/*"))
        if path.is_file()
    ]
    require_index(names, where=where, field=field)
    with readable(f"{where}/{INDEX}", field):
        text = (folder / INDEX).read_text(encoding="utf-8")
    layout = read_index(text, where=where, field=field)
    files = choose_files(names, layout, where=where, field=field)
    for name in files.values():
        if name.endswith(".safetensors"):
            check_weights(folder / name, where=f"{where}/{name}", field=field)
        elif name.endswith(".json"):
            check_json(folder / name, where=f"{where}/{name}", field=field)
    configs = {part: read_json(folder / name) for part, name in layout.configs().items()}
    check_parts(configs, layout, where=where, field=field)
    return files, layout.pipeline


def _digest_beside(
    work: Callable[[], object], folder: Path, files: Mapping[str, str], space: Workspace
) -> str:
    """Does `work` while a thread makes the digest, which leaves Python to others."""
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digest = pool.submit(_digest, folder, files, space)
        work()
        return digest.result()


def _digest(folder: Path, files: Mapping[str, str], space: Workspace) -> str:
    """Digest of the files by the names they are wanted under; each is read once.

    What a file's digest was is kept on the workspace, and holds as long as its size and the time
    of its last change do.
    """
    sidecar = space.models / ".digests" / f"{digest_of(str(folder.resolve()))[:32]}.json"
    known = read_json(sidecar)
    known = known if isinstance(known, dict) else {}
    found: dict[str, list[object]] = {}
    for name in files.values():
        status = (folder / name).stat()
        entry = known.get(name)
        if not (isinstance(entry, list) and entry[:2] == [status.st_size, status.st_mtime_ns]):
            entry = [status.st_size, status.st_mtime_ns, file_digest(folder / name)]
        found[name] = entry
    if found != known:
        write_json(sidecar, found)
    return digest_of([[target, found[source][2]] for target, source in sorted(files.items())])
