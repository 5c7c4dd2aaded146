"""`kubectl dreambooth …`: the commands."""

import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

import kubectl_dreambooth
from kubectl_dreambooth.errors import PluginError
from kubectl_dreambooth.job import RESOURCE, JobView, read_job, read_jobs, with_results
from kubectl_dreambooth.kubectl import Kubectl

FAILED, INTERRUPTED = 1, 130
# Columns of a picture on a wide terminal.
MAX_COLUMNS = 160


def command(function: Callable[..., None]) -> Callable[..., None]:
    """What all commands have: kubectl's own options, and errors without a traceback."""

    @click.option("-n", "--namespace", help="Namespace of the job; kubectl's current one else.")
    @click.option("--context", help="Cluster, as kubectl config names it; the current one else.")
    @click.option("--kubeconfig", help="Another kubeconfig file.")
    @functools.wraps(function)
    def wrapped(
        namespace: str | None, context: str | None, kubeconfig: str | None, **arguments: Any
    ) -> None:
        given = {"--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig}
        options = [word for name, value in given.items() if value for word in (name, value)]
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGHUP, _end)
        try:
            function(Kubectl.found(options), **arguments)
        except PluginError as error:
            click.echo(f"Error: {error}", err=True)
            raise click.exceptions.Exit(FAILED) from error
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nStopped.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(FAILED) from None

    return wrapped


def _end(number: int, _: Any) -> NoReturn:
    # Unwinds, so that what was made in the cluster is taken away again.
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(kubectl_dreambooth.__version__, prog_name="kubectl-dreambooth")
def main() -> None:
    """DreamBoothJobs: how far they are, what they log, what they have drawn.

    Uses the kubectl on the PATH, and its kubeconfig, for everything.
    """


@main.command()
@click.argument("name", required=False)
@click.option("-w", "--watch", "watched", is_flag=True, help="Until the job is over.")
@command
def status(kubectl: Kubectl, name: str | None, watched: bool) -> None:
    """Show how far job NAME is, or all jobs of the namespace.

    With --watch the exit code says how it ended: 0 succeeded, 1 failed.
    """
    from kubectl_dreambooth.show import job_panel, print_jobs

    console = Console()
    if name is None:
        if watched:
            raise PluginError("--watch needs the name of a job", "kubectl get dbj --watch has all.")
        jobs = read_jobs(kubectl)
        if jobs:
            print_jobs(console, jobs)
        else:
            click.echo("There are no DreamBoothJobs here.")
        return
    if not watched:
        console.print(job_panel(read_job(kubectl, name)))
        return
    if _watch(kubectl, name, console).phase == "Failed":
        raise click.exceptions.Exit(FAILED)


def _watch(kubectl: Kubectl, name: str, console: Console) -> JobView:
    from kubectl_dreambooth.show import job_panel, line_of
    from kubectl_dreambooth.watching import watch

    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for job in watch(kubectl, name):
                live.update(job_panel(job), refresh=True)
        return job
    told = ""
    for job in watch(kubectl, name):
        if (line := line_of(job)) != told:
            told = line
            click.echo(line)
    return job


@main.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over.")
@command
def logs(kubectl: Kubectl, name: str, follow: bool) -> None:
    """Print the log of job NAME, over all its tries."""
    from kubectl_dreambooth.logs import follow_log, print_log

    job = read_job(kubectl, name)
    if follow:
        follow_log(kubectl, job, sys.stdout.buffer)
    else:
        print_log(kubectl, job, sys.stdout.buffer)


@main.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the files; ./NAME when left out.")  # fmt: skip
@click.option("--model", "with_model", is_flag=True, help="The tuned model, too: gigabytes.")
@command
def images(kubectl: Kubectl, name: str, output: Path | None, with_model: bool) -> None:
    """Copy pictures, contact sheet and report of job NAME to this machine.

    Every file is checked. What is here already is not copied again, so a copy that broke off goes
    on with the same command.
    """
    from kubectl_dreambooth.copying import copy_out
    from kubectl_dreambooth.reader import reader

    job = with_results(read_job(kubectl, name))
    wanted = ["images", "contactSheet", "report", *(["model"] if with_model else [])]
    parts = [_below(job, part) for part in wanted if part in job.outputs]
    if not parts:
        raise PluginError(
            f"job {name} ended before it had drawn anything", "Its model comes with --model."
        )
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("Starting a pod that reads the volume", total=None)
        with reader(kubectl, job) as shell:
            bars.update(task, description="Copying")
            copied = copy_out(
                shell,
                job.folder,
                parts,
                output or Path(name),
                lambda done, total: bars.update(task, completed=done, total=total),
            )
    here = f", {copied.kept} of them were here already" if copied.kept else ""
    click.echo(f"{len(copied.files)} files in {output or Path(name)}{here}.")


@main.command("contact-sheet")
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="Save it as this file instead of showing it.")  # fmt: skip
@click.option("--as", "way", default="auto", show_default=True,
              type=click.Choice(["auto", "kitty", "iterm", "sixel", "blocks"]),
              help="How the terminal shows pictures.")  # fmt: skip
@command
def contact_sheet(kubectl: Kubectl, name: str, output: Path | None, way: str) -> None:
    """Show photos, base model and tuned model of job NAME side by side, in the terminal."""
    from kubectl_dreambooth.copying import copy_out
    from kubectl_dreambooth.pictures import best_way, show
    from kubectl_dreambooth.reader import reader

    job = with_results(read_job(kubectl, name))
    if "contactSheet" not in job.outputs:
        raise PluginError(f"job {name} has no contact sheet", "It ended before drawing one.")
    if output is None and way == "auto" and not sys.stdout.isatty():
        raise PluginError("this is no terminal", "Save the picture with --output FILE.")
    part = _below(job, "contactSheet")
    with tempfile.TemporaryDirectory() as folder:
        with reader(kubectl, job) as shell:
            copy_out(shell, job.folder, [part], Path(folder))
        png = (Path(folder) / part).read_bytes()
    if output is not None:
        _save(png, output)
        return
    chosen = best_way() if way == "auto" else way
    show(png, min(MAX_COLUMNS, Console().width), sys.stdout, chosen)


@main.command()
@click.argument("name")
@command
def cancel(kubectl: Kubectl, name: str) -> None:
    """Stop job NAME and give its machines back, without losing anything.

    It is suspended: what is finished stays on the volume, training keeps its last checkpoint, and
    `resume` goes on from there. To remove a job for good use kubectl delete.
    """
    job = read_job(kubectl, name)
    if job.over:
        raise PluginError(f"job {name} is over ({job.phase})", "There is nothing to stop.")
    if job.suspended:
        click.echo(f"Job {name} is suspended already.")
        return
    _suspend(kubectl, name, "true")
    click.echo(
        f"Job {name} stops and keeps what it has.\n"
        f"  kubectl dreambooth resume {name}   goes on with it\n"
        f"  kubectl delete dbj {name}          removes it"
    )


@main.command()
@click.argument("name")
@command
def resume(kubectl: Kubectl, name: str) -> None:
    """Go on with job NAME where it was stopped."""
    job = read_job(kubectl, name)
    if job.over:
        raise PluginError(f"job {name} is over ({job.phase})", "Make a new job to run it again.")
    if not job.suspended:
        click.echo(f"Job {name} is not suspended ({job.phase}).")
        return
    _suspend(kubectl, name, "false")
    click.echo(f"Job {name} goes on. kubectl dreambooth status {name} --watch shows how far it is.")


def _suspend(kubectl: Kubectl, name: str, value: str) -> None:
    patch = f'{{"spec":{{"suspend":{value}}}}}'
    kubectl.run("patch", RESOURCE, name, "--type", "merge", "--patch", patch)


def _below(job: JobView, output: str) -> str:
    """The path of an output relative to the job's folder."""
    path = job.outputs[output]
    return path.removeprefix(f"{job.folder}/")


def _save(png: bytes, file: Path) -> None:
    temporary = file.with_name(f".part-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(png)
        os.replace(temporary, file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise PluginError(
            f"{file} cannot be written ({error.strerror})", "Give another file with --output."
        ) from error
    click.echo(file)
