"""From a manifest to the result, and what a second run does."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreambooth.errors import InfrastructureError, UserError
from dreambooth.pipeline.progress import Event, EventKind, StageName
from dreambooth.training.checkpoint import CheckpointStore
from dreambooth.workspace.digest import digest_of, file_digest, tree_digest
from dreambooth.workspace.lock import exclusive
from tests.jobs import write_photo
from tests.tiny import make_tiny_model
from tests.unit.pipeline.conftest import Run, pictures_of

STAGES = [stage.value for stage in StageName]


def test_a_job_tells_of_each_stage_in_order_from_start_to_result(undisturbed: Run) -> None:
    told = [
        (event.kind, event.stage.value if event.stage else None)
        for event in undisturbed.events
        if event.kind not in (EventKind.STAGE_PROGRESS, EventKind.WARNING)
    ]
    in_stages = [
        (kind, stage)
        for stage in STAGES
        for kind in (EventKind.STAGE_STARTED, EventKind.STAGE_FINISHED)
    ]
    assert told == [
        (EventKind.JOB_STARTED, None),
        *in_stages[:2],
        (EventKind.JOB_RESOLVED, None),
        *in_stages[2:],
        (EventKind.JOB_FINISHED, None),
    ]


def test_progress_counts_up_to_what_was_planned_in_every_stage(undisturbed: Run) -> None:
    for stage, total, unit in [
        (StageName.PHOTOS, 3, "photos"),
        (StageName.CLASS_IMAGES, 4, "images"),
        (StageName.GENERATE, 2, "images"),
        # Two of the subject and two of the class by each model, and the contact sheet's two.
        (StageName.EVALUATE, 10, "images"),
    ]:
        reports = [
            event
            for event in undisturbed.events
            if event.kind is EventKind.STAGE_PROGRESS and event.stage is stage
        ]
        done = [event.done or 0 for event in reports]
        assert done == sorted(done), stage
        assert (done[0], done[-1]) == (0, total)
        assert {(event.total, event.unit) for event in reports} == {(total, unit)}


def test_training_reports_steps_and_losses(undisturbed: Run) -> None:
    steps = [event for event in undisturbed.events if event.stage is StageName.TRAIN and event.step]
    losses = undisturbed.result["training"]["losses"]
    assert steps
    for event in steps:
        assert event.step is not None
        assert (event.done, event.total) == (event.step, 12)
        assert event.loss == losses[event.step - 1]


def test_the_result_is_on_the_disk_and_its_digests_are_those_of_the_files(
    undisturbed: Run,
) -> None:
    result, folder = undisturbed.result, undisturbed.folder
    assert undisturbed.read("result") == result
    outputs = result["outputs"]
    assert undisturbed.workspace / outputs["folder"] == folder.root
    assert outputs["modelDigest"] == tree_digest(folder.root / outputs["model"])
    assert outputs["contactSheetDigest"] == file_digest(folder.root / outputs["contactSheet"])
    images = [[folder.root / name for name in each["files"]] for each in result["images"]]
    assert outputs["imagesDigest"] == digest_of(
        [[file_digest(file) for file in files] for files in images]
    )
    class_images = undisturbed.workspace / result["classImages"]["folder"]
    made = sorted(file_digest(file) for file in class_images.glob("*.png"))
    assert len(made) == result["classImages"]["count"] == 4
    for each in result["photos"]["accepted"]:
        assert file_digest(folder.photos / each["file"]) == each["digest"]


def test_the_result_says_what_was_used_and_what_it_took(undisturbed: Run) -> None:
    result = undisturbed.result
    assert [stage["name"] for stage in result["stages"]] == STAGES
    assert not any(stage["cached"] for stage in result["stages"])
    assert all(stage["seconds"] >= 0 for stage in result["stages"])
    assert result["peakMemoryBytes"] > 100 * 2**20
    assert {"dreambooth", "python", "torch", "ray", "diffusers"} <= set(result["versions"])
    assert result["resolved"]["token"] == "sks"
    assert result["resolved"]["training"]["learningRate"] == 0.001
    assert result["resolved"]["classImages"]["prompt"] == "photo of a {class}"
    assert result["quality"]["encoder"] == "efficientnet-lite0"
    assert -1 <= result["quality"]["subjectFidelity"] <= 1
    assert len(result["training"]["losses"]) == 12
    assert result["summary"]


def test_the_report_of_a_real_job_needs_nothing_but_itself(undisturbed: Run) -> None:
    report = undisturbed.folder.report.read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", report)
    # Photos, two pictures of each model, and more.
    assert len(sources) >= 7
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.findall(r"url\((?!['\"]?data:)|@import|<script[^>]+src", report)


def test_the_timeline_of_a_job_says_where_its_time_went(undisturbed: Run) -> None:
    [run] = undisturbed.read("timeline")["runs"]
    assert run["state"] == "Succeeded"
    assert [stage["name"] for stage in run["stages"]] == STAGES
    done = {(row["stage"], row["activity"]) for row in run["spans"]}
    assert {
        ("photos", "photos"),
        ("classImages", "model load"),
        ("classImages", "draw"),
        ("classImages", "write pictures"),
        ("train", "model load"),
        ("train", "training steps"),
        ("train", "checkpoint"),
        ("train", "save model"),
        ("generate", "draw"),
        ("evaluate", "draw"),
        ("evaluate", "measure"),
    } <= done
    for row in run["spans"]:
        assert 0 <= row["start"] <= row["end"] <= run["seconds"] + 1
    sums = {key: value for key, value in run.items() if key != "spans"}
    assert undisturbed.result["timeline"].keys() == sums.keys()
    assert "gpuIdleShare" not in run["stages"][1]


def test_a_run_that_goes_on_adds_its_timeline_to_that_of_the_interrupted_one(fresh: Path) -> None:
    stopped = Run(fresh, listener=stop_at(StageName.GENERATE, 1))
    with pytest.raises(KeyboardInterrupt):
        stopped()
    [first] = stopped.read("timeline")["runs"]
    assert first["state"] == "Interrupted"
    assert {row["stage"] for row in first["spans"]} >= {"photos", "classImages", "train"}
    run = Run(fresh)()
    kept, second = run.read("timeline")["runs"]
    assert kept == first
    assert second["state"] == "Succeeded"
    assert [stage["name"] for stage in second["stages"]] == ["generate", "evaluate"]


def test_nothing_is_left_that_only_the_run_needed(undisturbed: Run) -> None:
    names = {entry.name for entry in undisturbed.folder.root.iterdir()}
    assert not names & {"checkpoints", "ray-train"}
    assert not [file for file in undisturbed.workspace.rglob(".tmp-*")]


def test_the_same_command_again_does_nothing_and_says_the_same(finished: Path) -> None:
    first = Run(finished).read("result")
    again = Run(finished)()
    assert again.ran == []
    assert again.work.sessions == 0 and again.work.loaded == []
    assert all(stage["cached"] for stage in again.result["stages"])
    for name in ("images", "classImages", "training", "quality", "outputs", "summary"):
        assert again.result[name] == first[name]


def test_the_same_job_on_another_workspace_makes_the_same_bytes(
    undisturbed: Run, fresh: Path
) -> None:
    other = Run(fresh)()
    assert pictures_of(other) == pictures_of(undisturbed)
    assert tree_digest(other.folder.model) == tree_digest(undisturbed.folder.model)


AFTER_CLASS_IMAGES = ["classImages", "train", "generate", "evaluate"]
AFTER_TRAIN = AFTER_CLASS_IMAGES[1:]


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"classImages.count": 6}, AFTER_CLASS_IMAGES),
        ({"classImages.prompt": "a {class}"}, AFTER_CLASS_IMAGES),
        ({"subject.token": "ohwx"}, AFTER_TRAIN),
        ({"training.steps": 9}, AFTER_TRAIN),
        ({"generation.seed": 1}, ["generate", "evaluate"]),
        ({"generation.imagesPerPrompt": 3}, ["generate", "evaluate"]),
        ({"evaluation.imagesPerPrompt": 3}, ["evaluate"]),
        ({"evaluation.prompts": ["a {token} {class} asleep"]}, ["evaluate"]),
        # What says where, when or how often, not what.
        ({"training.checkpointEvery": 6}, []),
        ({"cluster.workers": 2}, []),
        ({"retries": 1, "limits": {"runMinutes": 60}}, []),
    ],
    ids=lambda value: ",".join(value) if value else "nothing",
)
def test_a_change_repeats_the_stages_that_depend_on_it_and_no_other(
    finished: Path, changes: dict[str, Any], again: list[str]
) -> None:
    assert Run(finished, changes)().ran == again


def test_photos_that_were_swapped_in_place_are_noticed(finished: Path) -> None:
    write_photo(finished / "photos" / "0.png", seed=9)
    assert Run(finished)().ran == ["photos", *AFTER_TRAIN]


def test_another_model_under_the_same_name_is_noticed(finished: Path) -> None:
    make_tiny_model(finished / "tiny", seed=1)
    assert Run(finished)().ran == AFTER_CLASS_IMAGES


def _spoil(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def _class_image(run: Run) -> Path:
    folder: Path = run.workspace / run.read("result")["classImages"]["folder"]
    return sorted(folder.glob("*.png"))[1]


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda run: _spoil(run.folder.photos / "00.png"), ["photos"]),
        (lambda run: _spoil(_class_image(run)), ["classImages"]),
        (lambda run: _spoil(next(run.folder.model.rglob("*.safetensors"))), ["train"]),
        (lambda run: (run.folder.model / "model_index.json").unlink(), ["train"]),
        (lambda run: next(run.folder.images.rglob("*.png")).unlink(), ["generate"]),
        (lambda run: run.folder.contact_sheet.unlink(), ["evaluate"]),
        (lambda run: (run.folder.stages / "train.json").write_text('{"inp'), ["train"]),
        (lambda run: (run.folder.stages / "generate.json").write_text("[1]"), ["generate"]),
        (lambda run: (run.folder.stages / "photos.json").write_bytes(b"\xff\xfe"), ["photos"]),
        (lambda run: run.folder.result.unlink(), []),
        (lambda run: run.folder.report.unlink(), []),
    ],
    ids=[
        "a photo cut short",
        "a class image cut short",
        "weights cut short",
        "a file of the model lost",
        "a picture lost",
        "contact sheet lost",
        "torn record",
        "record of another kind",
        "record that is no text",
        "result lost",
        "report lost",
    ],
)
def test_damage_is_mended_by_repeating_its_stage_alone_with_the_same_outcome(
    undisturbed: Run, finished: Path, damage: Callable[[Run], None], again: list[str]
) -> None:
    run = Run(finished)
    damage(run)
    run()
    assert run.ran == again
    assert pictures_of(run) == pictures_of(undisturbed)
    assert tree_digest(run.folder.model) == tree_digest(undisturbed.folder.model)
    assert run.result["outputs"] == undisturbed.result["outputs"]
    assert run.folder.report.is_file() and run.folder.result.is_file()


def stop_at(stage: StageName, done: int) -> Callable[[Event], None]:
    """A listener that stops the run as Ctrl-C does, once `done` items of `stage` are finished."""

    def listener(event: Event) -> None:
        if event.kind is EventKind.STAGE_PROGRESS and event.stage is stage and event.done == done:
            raise KeyboardInterrupt

    return listener


@pytest.mark.parametrize(
    ("stage", "done"),
    [
        (StageName.PHOTOS, 3),
        (StageName.CLASS_IMAGES, 2),
        (StageName.TRAIN, 0),
        (StageName.GENERATE, 1),
        (StageName.EVALUATE, 3),
        (StageName.EVALUATE, 9),
    ],
)
def test_an_interrupted_job_goes_on_and_ends_as_one_that_was_not(
    undisturbed: Run, fresh: Path, stage: StageName, done: int
) -> None:
    stopped = Run(fresh, listener=stop_at(stage, done))
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert stopped.events[-1].kind is EventKind.JOB_FAILED
    assert stopped.events[-1].data == {"state": "Interrupted", "exitCode": 130}
    assert stopped.read("progress")["state"] == "Interrupted"
    run = Run(fresh)()
    assert run.ran == STAGES[STAGES.index(stage) :]
    assert pictures_of(run) == pictures_of(undisturbed)
    assert tree_digest(run.folder.model) == tree_digest(undisturbed.folder.model)


def test_training_that_was_interrupted_goes_on_at_its_last_checkpoint(
    undisturbed: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointStore.save

    def save_and_stop(self: CheckpointStore, checkpoint: Any) -> None:
        save(self, checkpoint)
        if checkpoint.step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            Run(fresh)()
    run = Run(fresh)()
    said = [event.message for event in run.events if event.stage is StageName.TRAIN]
    assert "going on from step 6" in said
    assert run.ran == AFTER_TRAIN
    assert run.result["training"] == undisturbed.result["training"]
    assert tree_digest(run.folder.model) == tree_digest(undisturbed.folder.model)


def test_what_the_author_can_mend_is_told_with_field_remedy_and_code_and_then_goes_on(
    fresh: Path,
) -> None:
    photo = fresh / "photos" / "1.png"
    whole = photo.read_bytes()
    _spoil(photo)
    failed = Run(fresh)
    with pytest.raises(UserError):
        failed()
    told = failed.events[-1]
    assert told.kind is EventKind.JOB_FAILED
    assert "1.png" in (told.message or "")
    assert told.data["exitCode"] == 2 and told.data["pid"] == os.getpid()
    assert told.data["field"] and told.data["remedy"] and told.data["reason"]
    assert failed.read("progress")["state"] == "Failed"
    assert not failed.folder.photos.exists()
    photo.write_bytes(whole)
    assert Run(fresh)().ran == STAGES


def test_photos_are_looked_at_before_the_base_model(fresh: Path) -> None:
    _spoil(fresh / "photos" / "1.png")
    (fresh / "tiny" / "model_index.json").unlink()
    failed = Run(fresh)
    with pytest.raises(UserError, match=r"1\.png"):
        failed()
    write_photo(fresh / "photos" / "1.png", seed=1)
    with pytest.raises(UserError, match="model_index"):
        failed()
    assert failed.ran == ["photos"]
    assert failed.work.sessions <= 1 and failed.work.drawn == 0


@pytest.mark.usefixtures("hub")
def test_an_encoder_that_the_hub_does_not_give_costs_no_picture(fresh: Path) -> None:
    # The hub of the test has no repository at all.
    failed = Run(fresh, {"evaluation.encoder": "dino-vits16"})
    with pytest.raises(InfrastructureError, match="dino-vits16") as raised:
        failed()
    assert raised.value.field == "spec.evaluation.encoder"
    assert failed.ran == ["photos"]
    assert failed.work.drawn == 0 and failed.work.trainings == 0


def test_workers_that_fail_again_and_again_end_the_job_as_a_failure_of_the_machine(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: CheckpointStore, checkpoint: Any) -> None:
        raise RuntimeError("the device went away")

    run = Run(fresh)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", fails)
        with pytest.raises(InfrastructureError, match="the device went away"):
            run()
    assert run.work.trainings == 4
    assert run.events[-1].data["exitCode"] == 3


def test_one_failure_of_a_worker_costs_nothing_but_steps(
    undisturbed: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = CheckpointStore.save, list[int]()

    def fails_once(self: CheckpointStore, checkpoint: Any) -> None:
        if checkpoint.step == 9 and not failures:
            failures.append(checkpoint.step)
            raise RuntimeError("the device went away")
        save(self, checkpoint)

    monkeypatch.setattr(CheckpointStore, "save", fails_once)
    run = Run(fresh)()
    assert failures == [9] and run.work.trainings == 2
    assert run.result["training"] == undisturbed.result["training"]


def test_a_second_run_of_the_same_job_at_the_same_time_is_refused_and_harms_nothing(
    finished: Path,
) -> None:
    run = Run(finished)
    before = run.folder.progress.read_bytes()
    with (
        exclusive(run.folder.lock, what="the first run"),
        pytest.raises(UserError, match="another process"),
    ):
        run()
    assert run.folder.progress.read_bytes() == before


def test_what_torn_writes_left_in_the_jobs_folder_is_swept(finished: Path) -> None:
    run = Run(finished)
    (run.folder.root / ".tmp-0123456789ab-model").mkdir()
    (run.folder.stages / ".tmp-0123456789ab-train.json").write_text("{")
    run()
    assert not list(run.folder.root.rglob(".tmp-*"))


def test_a_job_without_a_token_is_given_one_that_it_keeps(fresh: Path) -> None:
    first = Run(fresh, {"subject.token": None})()
    token = first.result["resolved"]["token"]
    assert token and token != "dog"
    assert [each["prompt"] for each in first.result["images"]] == [f"photo of a {token} dog"]
    assert Run(fresh, {"subject.token": None})().ran == []


def test_lora_and_keep_best_run_from_beginning_to_end(fresh: Path) -> None:
    changes = {"training.method": "lora", "training.keep": "best", "training.lora": {"rank": 2}}
    run = Run(fresh, changes)()
    assert [file.name for file in run.folder.model.iterdir()] == [
        "pytorch_lora_weights.safetensors"
    ]
    assert run.result["training"]["keptStep"] in (6, 9, 12)
    assert run.result["training"]["selection"]["measured"]
    files = [run.folder.root / name for each in run.result["images"] for name in each["files"]]
    assert len(files) == 2 and all(file.is_file() for file in files)
    assert Run(fresh, changes)().ran == []
