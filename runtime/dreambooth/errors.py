"""Errors a person reads: what is wrong, where it was said, and what to do about it.

Three classes matter to whoever runs the job. A `UserError` is something the author of the manifest
can mend; it is never retried. A `BudgetError` is a limit that was reached. An `InfrastructureError`
is everything else that is not a defect of ours (a full disk, a hub that does not answer); trying
again can help.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the `dreambooth` command, stable because scripts and the operator read them."""

    DONE = 0
    USER_ERROR = 2
    INFRASTRUCTURE = 3
    BUDGET = 4
    INTERRUPTED = 130


class DreamBoothError(Exception):
    """Base of all errors shown without a traceback.

    Args:
        message: What is wrong, one sentence without a full stop.
        field: The manifest field or file it is about, e.g. `spec.subject.photos.path`.
        remedy: What to do now, one sentence with a full stop.
        reason: Stable CamelCase word that goes into the status condition.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INFRASTRUCTURE
    default_reason: ClassVar[str] = "Failed"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        remedy: str | None = None,
        reason: str | None = None,
    ) -> None:
        self.message = message
        self.field = field
        self.remedy = remedy
        self.reason = reason or self.default_reason
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        what = self.message.rstrip(".")
        return f"{where}{what}. {self.remedy}" if self.remedy else f"{where}{what}."

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders inside Ray; the default would call __init__ with the text.
        return (_rebuild, (type(self), self.message, self.field, self.remedy, self.reason))


def _rebuild(
    cls: type[DreamBoothError],
    message: str,
    field: str | None,
    remedy: str | None,
    reason: str,
) -> DreamBoothError:
    return cls(message, field=field, remedy=remedy, reason=reason)


class UserError(DreamBoothError):
    """Something the author of the manifest can mend. Never retried."""

    exit_code = ExitCode.USER_ERROR
    default_reason = "InvalidInput"


class BudgetError(DreamBoothError):
    """A limit that the manifest sets is reached. What is finished is kept."""

    exit_code = ExitCode.BUDGET
    default_reason = "GpuHoursReached"


class InfrastructureError(DreamBoothError):
    """The machine, the network or a service failed. Trying again can help."""

    default_reason = "InfrastructureFailed"
