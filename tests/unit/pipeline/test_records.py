"""Done-records: what lets a stage be skipped."""

from pathlib import Path

import pytest

from dreambooth.pipeline.progress import StageName
from dreambooth.pipeline.records import StageRecord, StageRecords

RECORD = StageRecord("inputs", {"digest": "d", "files": ["a.png"]}, 1.5, 3.0)
STAGE = StageName.GENERATE


@pytest.fixture
def records(tmp_path: Path) -> StageRecords:
    return StageRecords(tmp_path / "stages")


def test_a_record_is_found_again_by_the_inputs_it_was_made_from(records: StageRecords) -> None:
    assert records.load(STAGE, "inputs") is None
    records.save(STAGE, RECORD)
    assert records.load(STAGE, "inputs") == RECORD
    assert records.load(STAGE, "other inputs") is None
    assert records.load(StageName.TRAIN, "inputs") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"inputs": "inputs", "outp',
        b"[1, 2]",
        b"null",
        b"\xff\xfe\x00",
        b'{"inputs": "inputs"}',
        b'{"inputs": "inputs", "outputs": {}, "seconds": 1, "gpu_seconds": 0, "more": 1}',
    ],
)
def test_what_is_no_record_of_ours_is_taken_for_none(
    tmp_path: Path, records: StageRecords, content: bytes
) -> None:
    records.save(STAGE, RECORD)
    (tmp_path / "stages" / "generate.json").write_bytes(content)
    assert records.load(STAGE, "inputs") is None
    records.save(STAGE, RECORD)
    assert records.load(STAGE, "inputs") == RECORD


def test_the_latest_record_replaces_the_one_before(records: StageRecords) -> None:
    records.save(STAGE, RECORD)
    newer = StageRecord("other inputs", {}, 0.0, 0.0)
    records.save(STAGE, newer)
    assert records.load(STAGE, "inputs") is None
    assert records.load(STAGE, "other inputs") == newer
