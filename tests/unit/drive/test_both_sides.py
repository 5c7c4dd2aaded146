"""What the driver tells is what the operator takes: nothing of it is dropped on the way."""

from dataclasses import asdict

from dreambooth.cli.failures import failure_of
from dreambooth.drive.record import ProgressRecord
from dreambooth.errors import UserError
from dreambooth.pipeline.progress import Event, EventKind
from dreambooth_operator.planner.record import Record, parse_record
from tests.unit.drive.conftest import at
from tests.unit.drive.test_record import RESULT, training


def taken(record: ProgressRecord) -> Record:
    """The record after its way through a ConfigMap."""
    found = parse_record({"data": {"progress.json": record.encode(at(30))}})
    assert found is not None
    return found


def test_a_running_job() -> None:
    record = training()
    record.note(Event(EventKind.WARNING, message="IMG_3.jpg is blurred"), at(9))
    told, found = record.to_json(at(30)), taken(record)
    assert found.update == at(30)
    assert list(found.stages) == told["stages"]
    for part in ("attempt", "state", "stage", "progress", "resolved"):
        assert asdict(found)[part] == told[part]
    assert found.resumed_from_step == told["resumedFromStep"]
    assert found.gpu_seconds == told["gpuSeconds"]
    assert list(found.warnings) == told["warnings"]


def test_a_job_that_succeeded() -> None:
    record = training()
    record.note(Event(EventKind.JOB_FINISHED, data=RESULT), at(20))
    told, found = record.to_json(at(30)), taken(record)
    assert found.over
    assert (found.quality, found.outputs) == (told["quality"], told["outputs"])


def test_a_job_that_failed() -> None:
    record = training()
    error = UserError(
        "there are none", field="spec.subject.photos", remedy="Give some.", reason="NoPhotos"
    )
    record.note(failure_of(error), at(20))
    found = taken(record)
    assert found.failure is not None
    assert (found.failure.kind, found.failure.reason) == ("user", "NoPhotos")
    assert found.failure.message == str(error)
