"""Lock what gets installed, with hashes: `make lock`; `make verify` checks it, without a network.

Each lock's first lines carry a digest of what it was compiled from. The check compares digests, so
it needs neither a package index nor the resolver, and a changed input can't be forgotten.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.11"


@dataclass(frozen=True)
class Lock:
    """One file of pinned, hashed requirements and what it is compiled from."""

    output: str
    inputs: tuple[str, ...]
    constraints: tuple[str, ...] = ()


# In the order they are compiled: what developers test is what the images ship.
LOCKS = (
    Lock("requirements/uv.txt", ("requirements/uv.in",)),
    Lock("requirements/runtime.txt", ("runtime/pyproject.toml",)),
    Lock(
        "requirements/operator.txt",
        ("operator/pyproject.toml",),
        constraints=("requirements/runtime.txt",),
    ),
    Lock(
        "requirements/dev.txt",
        (
            "runtime/pyproject.toml",
            "operator/pyproject.toml",
            "plugin/pyproject.toml",
            "requirements/uv.in",
            "requirements/dev.in",
        ),
        constraints=("requirements/runtime.txt", "requirements/operator.txt"),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Compile the locks, or with `--check` say which of them are out of step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a difference")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions where allowed")
    options = parser.parse_args(arguments)
    if options.check:
        return _check()
    for lock in LOCKS:
        _compile(lock, upgrade=options.upgrade)
    return 0


def stale_locks(root: Path) -> list[str]:
    """Outputs whose recorded digest isn't that of their inputs, or that don't exist."""
    stale = []
    for lock in LOCKS:
        output = root / lock.output
        head = output.read_text().splitlines()[:2] if output.exists() else []
        if _digest_line(lock, root) not in head:
            stale.append(lock.output)
    return stale


def _check() -> int:
    stale = stale_locks(ROOT)
    for output in stale:
        print(f"{output} is out of step with its inputs. Run `make lock`.", file=sys.stderr)
    return 1 if stale else 0


def _compile(lock: Lock, *, upgrade: bool) -> None:
    """Resolve for all supported Pythons and systems; pins stay unless told to upgrade."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
    command += ["--no-header", "--python-version", OLDEST_PYTHON, "--output-file", lock.output]
    for constraint in lock.constraints:
        command += ["--constraints", constraint]
    if upgrade:
        command.append("--upgrade")
    subprocess.run([*command, *lock.inputs], cwd=ROOT, check=True)
    output = ROOT / lock.output
    head = f"# Made by `make lock`, don't edit.\n{_digest_line(lock, ROOT)}\n"
    output.write_text(head + output.read_text())
    pins = [line for line in output.read_text().splitlines() if line[0:1].isalnum()]
    print(f"{lock.output}: {len(pins)} packages")


def _digest_line(lock: Lock, root: Path) -> str:
    asked = {name: _requirements(root / name) for name in lock.inputs}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"# inputs: sha256:{digest}"


def _requirements(path: Path) -> list[str]:
    """What a file asks for, without comments and whatever else doesn't change the result."""
    if path.suffix == ".toml":
        project = tomllib.loads(path.read_text())["project"]
        return [project["requires-python"], *sorted(project["dependencies"])]
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return sorted(line for line in lines if line)


if __name__ == "__main__":
    sys.exit(main())
