"""`dreambooth drive`: what a job's head pod runs."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console

from dreambooth.cli.failures import ending, ends_well, failure_of, unexpected
from dreambooth.errors import DreamBoothError, InfrastructureError
from dreambooth.processors import usable_cpus
from dreambooth.spans import note_command_start
from dreambooth.workspace.layout import Workspace

if TYPE_CHECKING:
    from dreambooth.drive.environment import DriveEnvironment
    from dreambooth.drive.patcher import ProgressPatcher

# A file server may take this long to notice that the machine of an earlier try is gone.
LOCK_PATIENCE_SECONDS = 180.0


@click.command(hidden=True)
@click.argument("job_file", metavar="JOB.json", type=click.Path(path_type=Path))
@click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="DREAMBOOTH_WORKSPACE",
    help="Folder that all machines of the job see.",
)
@ends_well
def drive(job_file: Path, workspace: Path) -> None:
    """Run a job on the Ray cluster that RAY_ADDRESS names, and tell the operator about it.

    For the operator, which starts it in a cluster's head pod. People use `dreambooth run`.
    """
    from dreambooth.drive.environment import DriveEnvironment

    # Before torch is loaded: it would take a thread for each core of the node, whatever the pod may
    # use of them.
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
    with _told(DriveEnvironment.read(os.environ)) as (environment, patcher):
        _drive(job_file, workspace, environment, patcher)


def _drive(
    job_file: Path,
    workspace: Path,
    environment: "DriveEnvironment",
    patcher: "ProgressPatcher | None",
) -> None:
    from dreambooth.api.manifest import load_job
    from dreambooth.cli.terminal import PlainListener
    from dreambooth.drive.work import WorkPlan
    from dreambooth.models.defaults import resolve_settings
    from dreambooth.pipeline.driver import run_job
    from dreambooth.pipeline.progress import Listener
    from dreambooth.pipeline.usage import Accounting, limit_of

    job = load_job(job_file)
    ending().log = Workspace(workspace.absolute()).job(job.id).log
    listeners: list[Listener] = [PlainListener(Console(), workspace)]
    if patcher is not None:
        patcher.plans(WorkPlan.of(resolve_settings(job)))
        listeners.append(patcher)
    limit = environment.gpu_seconds_limit
    accounting = Accounting(
        attempt=environment.attempt,
        gpus=environment.gpus,
        used=environment.gpu_seconds_used,
        limit=limit_of(job) if limit is None else limit,
    )
    note_command_start()
    run_job(job, workspace, listeners, accounting, LOCK_PATIENCE_SECONDS)


@contextmanager
def _told(
    environment: "DriveEnvironment",
) -> Iterator[tuple["DriveEnvironment", "ProgressPatcher | None"]]:
    """The body with somebody who tells the operator, whatever becomes of it."""
    patcher = _patcher(environment)

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second signal must not break into the clean-up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The pod has seconds to live: this is told before the work unwinds.
        if patcher is not None:
            patcher.interrupted()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield environment, patcher
    except DreamBoothError as error:
        if patcher is not None:
            patcher(failure_of(error))
        raise
    except (KeyboardInterrupt, SystemExit):
        if patcher is not None:
            patcher.interrupted()
        raise
    except Exception as error:
        event, _ = unexpected(error, ending())
        if patcher is not None:
            patcher(event)
        raise InfrastructureError(
            f"this should not happen: {type(error).__name__}: {error}",
            remedy=event.data["remedy"],
            reason="Unexpected",
        ) from error
    finally:
        if patcher is not None:
            patcher.close()


def _patcher(environment: "DriveEnvironment") -> "ProgressPatcher | None":
    if environment.config_map is None:
        return None
    if environment.namespace is None:
        raise InfrastructureError(
            f"the namespace of the ConfigMap {environment.config_map} is not given",
            field="DREAMBOOTH_NAMESPACE",
            remedy="The operator sets this variable of the head pod; look at its version.",
            reason="BadEnvironment",
        )
    from dreambooth.drive.api_server import in_cluster
    from dreambooth.drive.patcher import ProgressPatcher
    from dreambooth.drive.record import ProgressRecord

    return ProgressPatcher(
        ProgressRecord(environment.attempt, environment.gpus or 0.0, datetime.now(UTC)),
        in_cluster(os.environ, environment.namespace, environment.config_map),
        environment.interval,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
