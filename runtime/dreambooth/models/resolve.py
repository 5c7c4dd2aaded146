"""From what the manifest says about the base model to a folder that can be loaded."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import dreambooth.models
from dreambooth.api.job import ModelRef
from dreambooth.errors import UserError
from dreambooth.models.files import check_json, check_weights, readable
from dreambooth.models.inventory import (
    CONVERT,
    INDEX,
    check_parts,
    choose_checker,
    choose_files,
    read_index,
    require_index,
)
from dreambooth.models.ready import COMMIT, ReadyModels, publish_links
from dreambooth.workspace.atomic import read_json, write_json
from dreambooth.workspace.digest import digest_of, file_digest
from dreambooth.workspace.layout import Workspace

FIELD = "spec.model"
BUILTIN = Path(dreambooth.models.__file__).parent / "builtin"


@dataclass(frozen=True)
class ResolvedModel:
    """A complete diffusers folder with safetensors weights.

    Attributes:
        folder: Ready to load; never written to.
        name: For people: `emoji`, the path, or `owner/name`.
        revision: The commit of a hub model; of others the first twelve digits of `digest`.
        digest: SHA-256 over names and contents of the files that are used, but for the checker's.
        pipeline: The class of diffusers' pipeline that it is.
        checker: The same of the safety checker's files, which are in `folder` too; None if there is
            none, or none is wanted.
        warning: What the user should know, if anything.
    """

    folder: Path
    name: str
    revision: str
    digest: str
    pipeline: str
    checker: str | None = None
    warning: str | None = None


@dataclass(frozen=True)
class _Found:
    """What a look at a folder gives: files by the name they are wanted under, and the pipeline."""

    files: dict[str, str]
    checker: dict[str, str]
    pipeline: str
    warning: str | None


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
    checked = ref.safety_checker == "auto"
    if ref.builtin is not None:
        return _builtin(ref.builtin, space, on_checked)
    if ref.path is not None:
        return _local(ref.path, space, manifest_dir, on_checked, checked=checked)
    if ref.repo is not None:
        return _from_hub(ref.repo, ref.revision, space, on_checked, checked=checked)
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
    found = _check(folder, where=f"the built-in model {name}", field=FIELD, checked=False)
    digest, _ = _digests_beside(on_checked, folder, found, space)
    return ResolvedModel(folder, name, digest[:12], digest, found.pipeline)


def _local(
    path: str,
    space: Workspace,
    manifest_dir: Path,
    on_checked: Callable[[], object],
    *,
    checked: bool,
) -> ResolvedModel:
    field = f"{FIELD}.path"
    folder = _find(path, (space.root, manifest_dir), field)
    found = _check(folder, where=path, field=field, checked=checked)
    digest, checker = _digests_beside(on_checked, folder, found, space)
    files = {**found.files, **found.checker}
    if any(target != source for target, source in files.items()):
        # diffusers looks for the plain names; a folder of links has them.
        both = f"-{checker[:16]}" if checker else ""
        ready = space.models / f"local--{digest[:16]}{both}"
        publish_links(folder, files, ready)
        folder = ready
    return ResolvedModel(folder, path, digest[:12], digest, found.pipeline, checker, found.warning)


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
    name: str,
    revision: str | None,
    space: Workspace,
    on_checked: Callable[[], object],
    *,
    checked: bool,
) -> ResolvedModel:
    if revision is None:
        raise UserError(
            f"{name} is given without a revision",
            field=f"{FIELD}.revision",
            remedy="Say at which revision, best the full commit.",
            reason="InvalidModel",
        )
    models = ReadyModels(space.models, name, FIELD, checked=checked)
    commit = revision if COMMIT.fullmatch(revision) else None
    folder = models.find(commit) if commit else None
    if commit is None or folder is None:
        commit, folder = models.update(revision)
    found = _check(folder, where=name, field=FIELD, checked=checked)
    digest, checker = _digests_beside(on_checked, folder, found, space)
    return ResolvedModel(folder, name, commit, digest, found.pipeline, checker, found.warning)


def _check(folder: Path, *, where: str, field: str, checked: bool) -> _Found:
    """The files to use, after a look at each that costs no reading of weights.

    Without `checked` nothing of a safety checker is looked at.
    """
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
    checker = choose_checker(names, layout, where=where, field=field) if checked else {}
    for name in (*files.values(), *checker.values()):
        if name.endswith(".safetensors"):
            check_weights(folder / name, where=f"{where}/{name}", field=field)
        elif name.endswith(".json"):
            check_json(folder / name, where=f"{where}/{name}", field=field)
    configs = {part: read_json(folder / name) for part, name in layout.configs().items()}
    check_parts(configs, layout, where=where, field=field)
    unused = checked and layout.lists_checker and not checker
    return _Found(files, checker, layout.pipeline, _unchecked(where) if unused else None)


def _unchecked(where: str) -> str:
    return (
        f"{where} has a safety checker without safetensors weights, or of another kind than "
        "StableDiffusionSafetyChecker, so that pictures are not checked. To have them checked, "
        f"{CONVERT[0].lower()}{CONVERT[1:]} To go without and hear no more of it, set "
        f"{FIELD}.safetyChecker to disabled."
    )


def _digests_beside(
    work: Callable[[], object], folder: Path, found: _Found, space: Workspace
) -> tuple[str, str | None]:
    """Does `work` while a thread makes the digests, which leaves Python to others."""
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        digests = pool.submit(_digests, folder, found, space)
        work()
        return digests.result()


def _digests(folder: Path, found: _Found, space: Workspace) -> tuple[str, str | None]:
    """The digest of the model, and that of its checker: of the names files are wanted under."""
    of = _file_digests(folder, (*found.files.values(), *found.checker.values()), space)
    model, checker = (
        digest_of([[target, of[source]] for target, source in sorted(files.items())])
        for files in (found.files, found.checker)
    )
    return model, checker if found.checker else None


def _file_digests(folder: Path, names: Iterable[str], space: Workspace) -> dict[str, str]:
    """The digests of files by name; each is read once.

    What a file's digest was is kept on the workspace, and holds as long as its size and the time
    of its last change do.
    """
    sidecar = space.models / ".digests" / f"{digest_of(str(folder.resolve()))[:32]}.json"
    known = read_json(sidecar)
    known = known if isinstance(known, dict) else {}
    found: dict[str, list[Any]] = {}
    for name in names:
        status = (folder / name).stat()
        entry = known.get(name)
        if not (isinstance(entry, list) and entry[:2] == [status.st_size, status.st_mtime_ns]):
            entry = [status.st_size, status.st_mtime_ns, file_digest(folder / name)]
        found[name] = entry
    if any(known.get(name) != entry for name, entry in found.items()):
        write_json(sidecar, {**known, **found})
    return {name: entry[2] for name, entry in found.items()}
