"""A reference to a base model becomes a folder that can be loaded, or a clear refusal."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dreambooth.api.job import ModelRef
from dreambooth.errors import DreamBoothError, InfrastructureError, UserError
from dreambooth.models.resolve import ResolvedModel, resolve
from dreambooth.workspace import atomic
from tests.fake_hub import FakeHub, Repo
from tests.serving import QuietHandler

COMMIT = "1" * 40
UNET = "unet/diffusion_pytorch_model.safetensors"


def find(folder: Path, **reference: str) -> ResolvedModel:
    ref = ModelRef(
        builtin=reference.get("builtin"),
        path=reference.get("path"),
        repo=reference.get("repo"),
        revision=reference.get("revision"),
    )
    return resolve(ref, workspace=folder / "ws", manifest_dir=folder)


def on_hub(folder: Path, revision: str = COMMIT) -> ResolvedModel:
    return find(folder, repo="me/tiny", revision=revision)


def refusal(
    folder: Path, kind: type[DreamBoothError] = UserError, **reference: str
) -> DreamBoothError:
    with pytest.raises(kind) as caught:
        find(folder, **reference)
    assert str(caught.value.field).startswith("spec.model")
    assert caught.value.remedy
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


@pytest.fixture
def repo(hub: FakeHub, tiny_model: Path) -> Repo:
    """The tiny model as a repository, with much beside it that nobody needs."""
    files = {name: (tiny_model / name).read_bytes() for name in names(tiny_model)}
    useless = {
        "README.md": b"# Tiny",
        "v1-5.ckpt": b"x" * 9999,
        "unet/diffusion_pytorch_model.bin": b"x" * 9999,
        "unet/diffusion_pytorch_model.non_ema.safetensors": b"x" * 9999,
        "safety_checker/model.safetensors": b"x" * 9999,
    }
    found = hub.models["me/tiny"] = Repo({**files, **useless}, COMMIT)
    return found


def test_the_builtin_model_needs_nothing_but_the_package(tmp_path: Path) -> None:
    model = find(tmp_path, builtin="emoji")
    assert (model.folder / "model_index.json").is_file()
    assert model.name == "emoji"
    assert model.revision == model.digest[:12]
    assert "use one of: emoji" in refusal(tmp_path, builtin="emojis").remedy.lower()  # type: ignore[union-attr]


def test_a_folder_of_the_workspace_or_beside_the_manifest_is_used_where_it_is(
    tmp_path: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    beside = find(tmp_path, path="models/tiny")
    assert beside.folder == tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, tmp_path / "ws" / "models" / "tiny")
    inside = find(tmp_path, path="models/tiny")
    assert inside.folder == tmp_path / "ws" / "models" / "tiny"
    assert inside.digest == beside.digest
    assert inside.name == "models/tiny"


def test_the_digest_tells_weights_apart_and_nothing_else(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "a")
    first = find(tmp_path, path="a").digest
    (tmp_path / "a" / "README.md").write_text("new")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert find(tmp_path, path="a").digest == find(tmp_path, path="b").digest == first
    weights = bytearray((tmp_path / "b" / UNET).read_bytes())
    weights[-1] ^= 1
    (tmp_path / "b" / UNET).write_bytes(weights)
    assert find(tmp_path, path="b").digest != first


def test_half_precision_weights_are_used_where_there_are_no_others(
    tmp_path: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "half")
    for file in list((tmp_path / "half").rglob("*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    for _ in range(2):
        model = find(tmp_path, path="half")
        assert names(model.folder) == names(tiny_model)
        assert model.digest == find(tmp_path, path="half").digest


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("gone", "there is no folder gone"),
        ("/etc", "leads out of the workspace"),
        ("../x", "leads out of the workspace"),
        ("x" * 300, "file name too long"),
        ("link", "is a link that leads out"),
        ("file", "file is a file"),
        ("nested", "has no model_index.json, but inner/model_index.json"),
    ],
)
def test_a_path_that_is_no_model_is_refused(
    tmp_path: Path, tiny_model: Path, path: str, words: str
) -> None:
    space = tmp_path / "place"
    space.mkdir()
    (space / "file").touch()
    (space / "link").symlink_to(tiny_model)
    shutil.copytree(tiny_model, space / "nested" / "inner")
    assert words in refusal(space, path=path).message


@pytest.mark.parametrize("name", ["model_index.json", UNET, "unet/config.json"])
def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(tiny_model, tmp_path / "m")
    real = Path.open

    def refuse(self: Path, *rest: object, **options: object) -> object:
        if self == tmp_path / "m" / name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    error = refusal(tmp_path, path="m")
    assert f"m/{name} cannot be read: permission denied" in error.message


def test_of_a_repository_only_what_is_needed_is_downloaded_and_only_once(
    tmp_path: Path, hub: FakeHub, repo: Repo, tiny_model: Path
) -> None:
    model = on_hub(tmp_path)
    assert names(model.folder) == names(tiny_model)
    assert sorted(hub.downloads()) == names(tiny_model)
    assert (model.name, model.revision) == ("me/tiny", COMMIT)
    assert all((model.folder / n).read_bytes() == repo.files[n] for n in names(tiny_model))
    hub.requests.clear()
    assert on_hub(tmp_path) == model
    assert hub.requests == []


def test_a_branch_is_asked_for_each_time_and_followed(
    tmp_path: Path, hub: FakeHub, repo: Repo
) -> None:
    first = on_hub(tmp_path, "main")
    repo.commit, repo.files[UNET] = "2" * 40, repo.files[UNET][:-1] + b"\0"
    second = on_hub(tmp_path, "main")
    assert (first.revision, second.revision) == (COMMIT, "2" * 40)
    assert first.digest != second.digest
    assert first.folder.is_dir()


def test_without_a_network_what_is_there_will_do(
    tmp_path: Path, hub: FakeHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = on_hub(tmp_path, "main")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert on_hub(tmp_path, "main") == model
    assert on_hub(tmp_path, COMMIT) == model
    error = refusal(tmp_path, InfrastructureError, repo="me/tiny", revision="v2")
    assert "not on this workspace yet" in error.message


def test_offline_mode_is_told_from_a_network_that_fails(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refusal(tmp_path, repo="me/tiny", revision=COMMIT)
    assert "HF_HUB_OFFLINE forbids" in error.message
    assert "give a path instead" in str(error.remedy)


@pytest.mark.parametrize("access", ["private", "gated"])
def test_a_token_of_the_environment_opens_what_it_may(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch, access: str
) -> None:
    repo.access = access
    error = refusal(tmp_path, repo="me/tiny", revision=COMMIT)
    assert "HF_TOKEN" in str(error.remedy) and "spec.model.secretRef" in str(error.remedy)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf_wrong" not in str(refusal(tmp_path, repo="me/tiny", revision=COMMIT))
    monkeypatch.setenv("HF_TOKEN", Repo.TOKEN)
    assert on_hub(tmp_path).revision == COMMIT


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda name: not name.startswith("vae/"), "vae/config.json"),
        (lambda name: not name.endswith(".safetensors"), "as a pickle only"),
        (lambda name: name.endswith((".md", ".ckpt")), "as a pickle only"),
        (lambda name: name == "README.md", "has no model_index.json"),
    ],
    ids=["a part is missing", "one part is a pickle", "all is a pickle", "no model"],
)
def test_a_repository_is_judged_by_its_names_and_its_index_before_more_is_downloaded(
    tmp_path: Path, hub: FakeHub, repo: Repo, keep: object, words: str
) -> None:
    assert callable(keep)
    repo.files = {name: content for name, content in repo.files.items() if keep(name)}
    assert words in refusal(tmp_path, repo="me/tiny", revision=COMMIT).message
    assert set(hub.downloads()) <= {"model_index.json"}


def test_a_pipeline_of_another_kind_is_refused_before_its_weights_are_downloaded(
    tmp_path: Path, hub: FakeHub, repo: Repo
) -> None:
    index = repo.files["model_index.json"]
    repo.files["model_index.json"] = index.replace(b"StableDiffusionPipeline", b"FluxPipeline")
    assert "is a FluxPipeline" in refusal(tmp_path, repo="me/tiny", revision=COMMIT).message
    assert hub.downloads() == ["model_index.json"]


def test_a_repository_without_a_revision_is_refused(tmp_path: Path) -> None:
    assert "without a revision" in refusal(tmp_path, repo="me/tiny").message
    assert "no base model" in refusal(tmp_path).message


RESOLVE = """
import sys
from pathlib import Path
from dreambooth.api.job import ModelRef
from dreambooth.models.resolve import resolve
ref = ModelRef(builtin=None, path=None, repo="me/tiny", revision=sys.argv[2])
print(resolve(ref, workspace=Path(sys.argv[1]), manifest_dir=Path(sys.argv[1])).digest)
"""


def process(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RESOLVE, str(folder / "ws"), COMMIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "runtime"},
    )


def test_a_killed_download_is_never_half_visible_and_keeps_finished_files(
    tmp_path: Path, hub: FakeHub, repo: Repo, tiny_model: Path
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def hold_the_unet(handler: QuietHandler) -> bool:
        if handler.command != "GET" or not handler.path.endswith(UNET) or ended.is_set():
            return False
        begun.set()
        ended.wait(60)
        handler.close_connection = True
        return True

    hub.faults.append(hold_the_unet)
    with process(tmp_path) as download:
        assert begun.wait(60)
        download.send_signal(signal.SIGKILL)
    ended.set()
    cache = tmp_path / "ws" / "cache" / "models" / "models--me--tiny"
    assert not (cache / "ready" / COMMIT).exists()
    finished = {path.name for path in (cache / "snapshots" / COMMIT).glob("*")}
    assert "model_index.json" in finished
    for left in (cache / "blobs").glob("*.incomplete"):
        os.utime(left, (0, 0))
    hub.requests.clear()
    assert names(on_hub(tmp_path).folder) == names(tiny_model)
    assert UNET in hub.downloads()
    assert "model_index.json" not in hub.downloads()
    assert list((cache / "blobs").glob("*.incomplete")) == []


def test_two_processes_that_want_the_same_model_both_get_it(
    tmp_path: Path, hub: FakeHub, repo: Repo, tiny_model: Path
) -> None:
    with process(tmp_path) as one, process(tmp_path) as other:
        digests = {each.communicate()[0].strip() for each in (one, other)}
    assert (one.returncode, other.returncode) == (0, 0)
    assert digests == {on_hub(tmp_path).digest}
    ready = tmp_path / "ws" / "cache" / "models" / "models--me--tiny" / "ready"
    assert [path.name for path in ready.iterdir()] == [COMMIT]


def test_another_run_that_was_first_is_not_disturbed(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.publish_dir_once

    def be_second(temporary: Path, final: Path) -> bool:
        shutil.copytree(temporary, final)
        (final / "first").touch()
        return real(temporary, final)

    monkeypatch.setattr("dreambooth.models.ready.publish_dir_once", be_second)
    assert (on_hub(tmp_path).folder / "first").exists()


def test_a_full_disk_in_the_middle_leaves_nothing_that_looks_ready(
    tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copyfile", full)
        error = refusal_of_disk(tmp_path)
    assert "no space left" in error.message
    ready = tmp_path / "ws" / "cache" / "models" / "models--me--tiny" / "ready"
    assert not ready.exists() or list(ready.iterdir()) == []
    assert on_hub(tmp_path).revision == COMMIT


def refusal_of_disk(folder: Path) -> InfrastructureError:
    with pytest.raises(InfrastructureError) as caught:
        on_hub(folder)
    return caught.value
