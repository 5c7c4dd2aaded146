"""The user's own kubectl: the only way to the cluster."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from kubectl_dreambooth.errors import KubectlError, PluginError

# An answer that takes longer will not come.
TIMEOUT_SECONDS = 60.0
_REASON = re.compile(r"^Error from server \((\w+)\): (.*)$", re.M)
_EXIT = "command terminated with exit code"
_REMEDIES = {
    "NotFound": "Check the name and the namespace; kubectl dreambooth status lists the jobs.",
    "Forbidden": "Ask whoever runs the cluster for permission.",
    "Unauthorized": "Log in again.",
}


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the user's choice of cluster and namespace.

    Attributes:
        options: Global options, such as `--namespace team`, passed on with every command.
        program: What is run.
    """

    options: tuple[str, ...] = ()
    program: str = "kubectl"

    @classmethod
    def found(cls, options: Sequence[str]) -> "Kubectl":
        """The one on the PATH, or the one that `KUBECTL` names.

        Raises:
            PluginError: If there is none.
        """
        program = os.environ.get("KUBECTL") or "kubectl"
        if shutil.which(program) is None:
            raise PluginError(
                f"{program} is not there or cannot be run",
                "Install kubectl, or name it in the environment variable KUBECTL.",
            )
        return cls(tuple(options), program)

    def run(
        self, *words: str, stdin: str | None = None, timeout: float | None = TIMEOUT_SECONDS
    ) -> str:
        """What a command prints.

        Raises:
            KubectlError: If it fails or takes too long.
        """
        return self.run_bytes(*words, stdin=stdin, timeout=timeout).decode(errors="replace")

    def run_bytes(
        self, *words: str, stdin: str | None = None, timeout: float | None = TIMEOUT_SECONDS
    ) -> bytes:
        """What a command prints, as bytes; see `run`."""
        try:
            done = subprocess.run(
                self.command(*words),
                input=None if stdin is None else stdin.encode(),
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"the cluster has not answered `kubectl {words[0]}` in {timeout:.0f} seconds",
                "Check the connection and try again.",
            ) from error
        if done.returncode != 0:
            raise failure(done.stderr.decode(errors="replace"), words)
        return done.stdout

    def json(self, *words: str) -> Any:
        """What a command prints as JSON."""
        text = self.run(*words, "--output", "json")
        try:
            return json.loads(text)
        except ValueError as error:
            raise KubectlError(
                f"`kubectl {words[0]}` did not print JSON", "Update kubectl and try again."
            ) from error

    @contextmanager
    def stream(self, *words: str, stdin: bytes | None = None) -> Iterator["Stream"]:
        """A running command, ended with the body."""
        process = subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            if stdin is not None:
                assert process.stdin is not None
                process.stdin.write(stdin)
                process.stdin.close()
                process.stdin = None
            yield Stream(process, process.stdout, words)
        except BrokenPipeError as error:
            raise Stream(process, process.stdout, words).failure() from error
        finally:
            process.kill()
            process.communicate()

    def command(self, *words: str) -> list[str]:
        """The words of a command line, global options before what follows `--`."""
        plain, marker, rest = _split(words)
        return [self.program, *plain, *self.options, *marker, *rest]


@dataclass(frozen=True)
class Stream:
    """The output of a running command."""

    process: "subprocess.Popen[bytes]"
    output: IO[bytes]
    words: tuple[str, ...]

    def finish(self) -> None:
        """Waits for the end.

        Raises:
            KubectlError: If the command failed.
        """
        _, errors = self.process.communicate()
        if self.process.returncode != 0:
            raise failure(errors.decode(errors="replace"), self.words)

    def failure(self) -> KubectlError:
        """What the command said when it ended too early."""
        _, errors = self.process.communicate()
        return failure(errors.decode(errors="replace"), self.words)


def failure(said: str, words: Sequence[str]) -> KubectlError:
    """Kubectl's complaint as an error of ours."""
    if match := _REASON.search(said):
        reason, message = match.groups()
        return KubectlError(message, _REMEDIES.get(reason, ""), reason)
    if "the server doesn't have a resource type" in said:
        return KubectlError(
            "this cluster does not know DreamBoothJobs",
            "Install the DreamBooth operator, or choose another cluster with --context.",
        )
    lines = [line for line in said.splitlines() if line.strip()]
    # What the command in the pod said is worth more than that it failed.
    telling = [line for line in lines if not line.startswith(_EXIT)] or lines
    what = telling[-1].removeprefix("error: ") if telling else "it did not say why"
    return KubectlError(f"`kubectl {words[0]}` failed: {what}", "")


def _split(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    if "--" not in words:
        return list(words), [], []
    at = list(words).index("--")
    return list(words[:at]), ["--"], list(words[at + 1 :])
