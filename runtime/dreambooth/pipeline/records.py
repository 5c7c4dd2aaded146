"""Done-records: what lets a finished stage be skipped and nothing else.

A record is written last, after everything the stage made is on the disk. It holds the digest of
the stage's inputs: another digest means the stage runs again.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dreambooth.pipeline.progress import StageName
from dreambooth.workspace.atomic import read_json, write_json


@dataclass(frozen=True)
class StageRecord:
    """A finished stage.

    Attributes:
        inputs: Digest of what the result depends on.
        outputs: What the stage returned.
        seconds: Wall time of the run that finished it.
        gpu_seconds: GPU time of all runs that worked on it.
    """

    inputs: str
    outputs: dict[str, Any]
    seconds: float
    gpu_seconds: float


class StageRecords:
    """The records of one job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, stage: StageName, inputs: str) -> StageRecord | None:
        """The record of `stage` if it was made from `inputs`; one that cannot be read is none."""
        value = read_json(self._file(stage))
        if not isinstance(value, dict) or value.get("inputs") != inputs:
            return None
        if set(value) != {each.name for each in fields(StageRecord)}:
            return None
        return StageRecord(**value)

    def has(self, stage: StageName) -> bool:
        """Whether `stage` was ever finished, from whatever inputs."""
        return self._file(stage).is_file()

    def save(self, stage: StageName, record: StageRecord) -> None:
        """Marks `stage` as finished."""
        write_json(self._file(stage), asdict(record))

    def _file(self, stage: StageName) -> Path:
        return self._folder / f"{stage.value}.json"
