"""Running other programs, always with a time-out and never with silent failures."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.errors import ClusterError, tail


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 60,
) -> str:
    """Run a program and return its standard output.

    Raises:
        ClusterError: it failed or ran past the time-out; the message ends with what it printed.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            env=environment,
            cwd=folder,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(words)} did not end within {timeout:.0f} s") from error
    if done.returncode:
        output = (done.stderr + done.stdout).strip()[-4000:]
        raise ClusterError(f"{' '.join(words)} failed with {done.returncode}:\n{output}")
    return done.stdout


def succeeds(argv: Sequence[str | Path], timeout: float = 60) -> bool:
    """Tell whether a program exits with zero; its output is of no interest."""
    try:
        run(argv, timeout=timeout)
    except ClusterError:
        return False
    return True


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = 600,
) -> None:
    """Run a long program with its output in a log.

    Raises:
        ClusterError: it failed or ran past the time-out; the message ends with the log's end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise ClusterError(f"{words[0]} is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise ClusterError(
                f"{words[0]} did not end within {timeout:.0f} s\n{tail(log)}"
            ) from error
    if done.returncode:
        raise ClusterError(f"{words[0]} failed with {done.returncode}\n{tail(log)}")
