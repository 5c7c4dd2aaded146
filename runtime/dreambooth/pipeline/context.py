"""What a stage gets and gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dreambooth.api.job import Job
from dreambooth.errors import BudgetError
from dreambooth.pipeline.progress import StageName
from dreambooth.workspace.layout import JobFolder, Workspace


@dataclass(frozen=True)
class BaseModel:
    """The base model as resolved for this job, and the token its tokenizer accepted.

    `pipeline` is the class of diffusers' pipeline that it is, and `checker` the digest of its
    safety checker, if pictures are checked.
    """

    folder: Path
    name: str
    revision: str
    digest: str
    pipeline: str
    token: str
    checker: str | None = None


class ProgressReport(Protocol):
    """How a stage says how far it is."""

    def __call__(
        self,
        done: int,
        total: int,
        unit: str,
        *,
        step: int | None = None,
        loss: float | None = None,
        resumed: int | None = None,
        message: str | None = None,
    ) -> None:
        """`done` of `total` `unit`s are finished; `resumed` is the step training went on from."""


class Budget(Protocol):
    """How long a stage may still hold its GPUs."""

    def seconds_left(self) -> float | None:
        """Seconds until the job's GPU time is used up; None for ever."""

    def reached(self, where: str | None = None) -> BudgetError:
        """The error that ends the job when it is, having done `where`."""


class NoLimit:
    """A budget without end."""

    def seconds_left(self) -> float | None:
        """For ever."""
        return None

    def reached(self, where: str | None = None) -> BudgetError:
        """Never the case."""
        return BudgetError(where or "there is no limit")


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may use.

    Attributes:
        job: With all defaults filled in.
        base_model: None as long as the photos have not been looked at.
        outputs: What the earlier stages returned, by stage.
        progress: Reports how far the stage is.
        warn: Tells the user something worth knowing that does not stop the job.
        later: Has something done when all stages are over or one has failed, before Ray stops.
        budget: GPU time. The driver ends every stage when it is used up; a stage that wants to end
            by itself, at a better moment, asks.
    """

    job: Job
    workspace: Workspace
    folder: JobFolder
    base_model: BaseModel | None
    outputs: dict[StageName, dict[str, Any]]
    progress: ProgressReport
    warn: Callable[[str], None]
    later: Callable[[Callable[[], object]], object]
    budget: Budget = field(default_factory=NoLimit)

    @property
    def model(self) -> BaseModel:
        """The base model."""
        if self.base_model is None:
            raise ValueError("the base model is not known before the photos are")
        return self.base_model

    def fill_in(self, prompt: str) -> str:
        """A prompt with `{token}` and `{class}` replaced."""
        subject = self.job.subject
        return prompt.replace("{token}", self.model.token).replace("{class}", subject.class_noun)


@dataclass(frozen=True)
class StageResult:
    """What a stage returns.

    Attributes:
        outputs: JSON-able, for later stages and the report.
        cached: It had nothing to do: another job had left its result where jobs share it.
    """

    outputs: dict[str, Any] = field(default_factory=dict)
    cached: bool = False


@runtime_checkable
class Prepares(Protocol):
    """A stage that can start something ahead, while an earlier one works."""

    def prepare(self, context: StageContext) -> None:
        """Starts it, where there is room; Ray runs."""


class Stage(Protocol):
    """One of the five stages."""

    name: StageName

    def inputs(self, context: StageContext) -> dict[str, Any]:
        """JSON-able: everything the result depends on; its digest decides about skipping."""

    def intact(self, context: StageContext, outputs: dict[str, Any]) -> bool:
        """Whether what a done-record promises is still on the workspace."""

    def run(self, context: StageContext) -> StageResult:
        """Does the work, going on where an interrupted run stopped."""
