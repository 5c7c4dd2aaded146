"""`dreambooth`: validate, run, look at, draw from and clean up after jobs.

Exit codes: 0 done, 2 something the user can mend, 3 anything else that went wrong, 4 the GPU time
is used up, 130 interrupted.
Everything that takes long to import is imported when a command needs it.
"""

import json
import re
import signal
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

import dreambooth
from dreambooth.cli.drive import drive
from dreambooth.cli.failures import ending, ends_well
from dreambooth.cli.json_lines import JsonListener
from dreambooth.errors import UserError
from dreambooth.spans import note_command_start
from dreambooth.workspace.layout import Workspace

_JOB_FILE = click.Path(path_type=Path)
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}

workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("workspace"),
    envvar="DREAMBOOTH_WORKSPACE",
    show_default=True,
    show_envvar=True,
    help="Folder with everything jobs make and share.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")


def _age(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A time span such as 30d in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)([mhdw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no time span; write 30d, 12h, 2w or 90m.")
    return float(int(match[1]) * _UNITS[match[2]])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(dreambooth.__version__, prog_name="dreambooth")
def main() -> None:
    """A few photos of a subject in, a personalised text-to-image model out.

    Exit codes: 0 done, 2 something you can mend, 3 the machine or a service failed (trying again
    can help), 4 the GPU time that the job may use is used up, 130 interrupted.
    """


main.add_command(drive)


@main.command(short_help="Check a manifest without running anything.")
@click.argument("job_file", metavar="JOB.yaml", type=_JOB_FILE)
@json_option
@ends_well
def validate(job_file: Path, as_json: bool) -> None:
    """Check a manifest as a cluster would, without running anything."""
    _tell_failures(as_json)
    from dreambooth.api.manifest import load_job

    job = load_job(job_file)
    if as_json:
        click.echo(json.dumps({"valid": True, "job": job.id, "manifest": job.manifest}))
        return
    click.echo(f"{job_file} is valid: job {job.name}, subject {job.subject.class_noun!r}.")


@main.command(short_help="Run a job, or go on with it.")
@click.argument("job_file", metavar="JOB.yaml", type=_JOB_FILE)
@workspace_option
@json_option
@ends_well
def run(job_file: Path, workspace: Path, as_json: bool) -> None:
    """Run a job: photos, class pictures, training, new pictures, evaluation.

    What an earlier run finished is not done again: after an interruption or a mended mistake, give
    the same command. With --json each event is one line.
    """
    _tell_failures(as_json)
    from dreambooth.api.manifest import load_job
    from dreambooth.cli.terminal import listener_for

    told = ending()
    again = ["dreambooth", "run", str(job_file), "--workspace", str(workspace)]
    told.again = [*again, "--json"] if as_json else again
    # Whoever ends the process politely gets the same clean stop as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    job = load_job(job_file)
    told.log = Workspace(workspace.absolute()).job(job.id).log
    listener = told.events or listener_for(Console(), workspace)
    from dreambooth.pipeline.driver import run_job

    note_command_start()
    try:
        run_job(job, workspace, [listener])
    finally:
        if close := getattr(listener, "close", None):
            close()


@main.command(short_help="Show how far jobs are.")
@click.argument("job", required=False)
@workspace_option
@json_option
@ends_well
def status(job: str | None, workspace: Path, as_json: bool) -> None:
    """Show how far a job is, or all jobs. JOB is its name or its manifest."""
    _tell_failures(as_json)
    from dreambooth.cli.status import job_names, print_overview, print_status, read_status

    space = Workspace(workspace.absolute())
    names = job_names(space) if job is None else [_job_id(job)]
    found = [read_status(space, name) for name in names]
    if as_json:
        for each in found:
            click.echo(json.dumps(each.to_json(), ensure_ascii=False))
    elif job is not None:
        print_status(Console(), found[0], workspace)
    elif found:
        print_overview(Console(), found)
    else:
        click.echo(f"No jobs on {workspace} yet.")


@main.command(short_help="Draw more pictures with a tuned model.")
@click.argument("job")
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    required=True,
    help="What to draw, e.g. 'a {token} {class} on the moon'. Can be given several times.",
)
@click.option("--count", type=click.IntRange(1, 10_000), default=4, show_default=True,
              help="Pictures of each prompt.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
              help="The same seed gives the same pictures.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("pictures"),
              show_default=True, help="Folder for the pictures.")  # fmt: skip
@workspace_option
@json_option
@ends_well
def generate(
    job: str,
    prompts: tuple[str, ...],
    count: int,
    seed: int,
    out: Path,
    workspace: Path,
    as_json: bool,
) -> None:
    """Draw more pictures with the tuned model of a finished job.

    JOB is its name or its manifest; {token} and {class} in prompts stand for the subject's.
    """
    _tell_failures(as_json)
    name = _job_id(job)
    for prompt in prompts:
        if "{token}" not in prompt and not as_json:
            click.echo(f"Note: without {{token}}, {prompt!r} need not show the subject.", err=True)
    from dreambooth.pipeline.generate import generate_more

    console = Console(stderr=True)
    with Progress(console=console, disable=as_json or not console.is_terminal) as bars:
        task = bars.add_task("Drawing", total=count * len(prompts))
        files = generate_more(
            workspace,
            name,
            list(prompts),
            count,
            seed,
            out,
            on_progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in files]}))
        return
    for file in files:
        click.echo(file)


@main.group(short_help="Look at and clean up what jobs share.")
def cache() -> None:
    """Look at and clean up what jobs share: models, encoders, class pictures."""


@cache.command("ls")
@workspace_option
@json_option
@ends_well
def cache_ls(workspace: Path, as_json: bool) -> None:
    """List what is cached: size, age and the jobs that used it."""
    _tell_failures(as_json)
    from dreambooth.cli.cache import entries
    from dreambooth.cli.cache_view import print_entries

    space = Workspace(workspace.absolute())
    found = entries(space)
    if as_json:
        for entry in found:
            click.echo(json.dumps(entry.to_json(space.root), ensure_ascii=False))
        return
    print_entries(Console(), found, time.time())


@cache.command("prune")
@click.option("--older-than", metavar="AGE", callback=_age,
              help="What no job used for this long, e.g. 30d, 12h, 2w.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Everything, whatever its age.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@workspace_option
@ends_well
def cache_prune(older_than: float | None, everything: bool, yes: bool, workspace: Path) -> None:
    """Remove what is cached. What a running job may need stays; jobs' results are not touched."""
    if everything == (older_than is not None):
        raise click.UsageError("Give either --older-than AGE or --all.")
    from dreambooth.cli.cache import entries, prune
    from dreambooth.cli.cache_view import print_entries, print_kept, total_in_words

    space, now, console = Workspace(workspace.absolute()), time.time(), Console()
    old = [entry for entry in entries(space) if everything or entry.age(now) > (older_than or 0.0)]
    print_kept(console, [entry for entry in old if entry.running is not None])
    free = [entry for entry in old if entry.running is None]
    if not free:
        click.echo("Nothing to remove.")
        return
    print_entries(console, free, now)
    if not yes and not click.confirm(f"Remove these and free {total_in_words(free)}?"):
        click.echo("Nothing was removed.")
        return
    gone = prune(space, free)
    click.echo(f"Freed {total_in_words(gone)}.")
    print_kept(console, [entry for entry in free if entry not in gone])


def _tell_failures(as_json: bool) -> None:
    ending().events = JsonListener() if as_json else None


def _job_id(name_or_file: str) -> str:
    """The job's folder name, given as itself or by its manifest."""
    if not name_or_file.endswith((".yaml", ".yml")):
        if "/" in name_or_file or name_or_file in ("", ".", ".."):
            raise UserError(
                f"{name_or_file!r} is no job's name",
                field="JOB",
                remedy="Give the name that `dreambooth status` shows, or the manifest's file.",
                reason="JobNotFound",
            )
        return name_or_file
    from dreambooth.api.manifest import load_job

    return load_job(Path(name_or_file)).id
