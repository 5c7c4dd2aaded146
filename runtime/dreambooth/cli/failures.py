"""How a command ends: exit code and one clear message for everything that can go wrong."""

import functools
import os
import shlex
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click

from dreambooth.cli.json_lines import JsonListener
from dreambooth.errors import DreamBoothError, ExitCode
from dreambooth.pipeline.progress import Event, EventKind

P = ParamSpec("P")
_KEY = "dreambooth.ending"


@dataclass
class Ending:
    """What is known about the running command in case it fails.

    Attributes:
        events: Where failures go as events; None for people.
        log: The job's log, once there is a job.
        again: The command that goes on where this one stops, as words.
    """

    events: JsonListener | None = None
    log: Path | None = None
    again: Sequence[str] = field(default=())


def ending() -> Ending:
    """Of the command that is running."""
    found: Ending = click.get_current_context().meta.setdefault(_KEY, Ending())
    return found


def ends_well(command: Callable[P, None]) -> Callable[P, None]:
    """Turns what `command` raises into a message and an exit code; no traceback is shown.

    Unexpected exceptions end with the code for infrastructure: the manifest's author cannot mend
    them, and whoever retries on that code may be lucky.
    """

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except DreamBoothError as error:
            _end(ending(), failure_of(error), f"Error: {error}", error.exit_code)
        except (KeyboardInterrupt, click.Abort, SystemExit):
            _end(ending(), _interrupted(), _how_to_go_on(ending()), ExitCode.INTERRUPTED)
        except Exception as error:
            event, text = unexpected(error, ending())
            _end(ending(), event, text, ExitCode.INFRASTRUCTURE)

    return guarded


def _end(told: Ending, event: Event, text: str, code: ExitCode) -> NoReturn:
    if told.events is None:
        click.echo(text, err=True)
    elif not told.events.failure_told:
        told.events(event)
    raise click.exceptions.Exit(int(code))


def failure_of(error: DreamBoothError) -> Event:
    """The event that says so."""
    return _failed(str(error), error.exit_code, error.reason, error.field, error.remedy)


def _interrupted() -> Event:
    data = {"state": "Interrupted", "exitCode": int(ExitCode.INTERRUPTED)}
    return Event(EventKind.JOB_FAILED, message="interrupted", data=data)


def _how_to_go_on(told: Ending) -> str:
    if not told.again:
        return "\nStopped."
    return (
        "\nStopped. What is finished is kept; the same command goes on from here:\n"
        f"  {shlex.join(told.again)}"
    )


def unexpected(error: Exception, told: Ending) -> tuple[Event, str]:
    """What to say of a defect, after keeping its traceback."""
    file = _keep_traceback(error, told.log)
    what = f"{type(error).__name__}: {error}".strip().rstrip(":.")
    remedy = f"Run again; if it comes back, report it with {file}, where the details are."
    text = f"this should not happen: {what}"
    event = _failed(f"{text}. {remedy}", ExitCode.INFRASTRUCTURE, "Unexpected", None, remedy)
    return event, f"Error: {text}. {remedy}"


def _failed(
    message: str, code: ExitCode, reason: str, where: str | None, remedy: str | None
) -> Event:
    data: dict[str, Any] = {
        "field": where,
        "remedy": remedy,
        "reason": reason,
        "exitCode": int(code),
        "pid": os.getpid(),
    }
    return Event(EventKind.JOB_FAILED, message=message, data=data)


def _keep_traceback(error: Exception, log: Path | None) -> Path:
    """Appends the traceback to the job's log, or to a new file where there is no job yet."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"{now} unexpected\n{''.join(traceback.format_exception(error))}"
    if log is not None:
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            pass
        else:
            return log
    with tempfile.NamedTemporaryFile(
        "w", prefix="dreambooth-", suffix=".log", delete=False, encoding="utf-8"
    ) as other:
        other.write(text)
    return Path(other.name)
