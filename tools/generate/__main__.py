"""Make the generated files anew: `make generate`; `make verify` checks that none is stale."""

import argparse
import base64
import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.generate.reference import manifest_reference

ROOT = Path(__file__).resolve().parents[2]
CRD = "crds/dreamboothjobs.yaml"
PHOTOS = "examples/subjects/robot/photos"


@dataclass(frozen=True)
class Output:
    """A generated file and how its content is made from the repository at `root`."""

    path: str
    make: Callable[[Path], str]


def crd_copy(root: Path) -> str:
    """The API, with a first line that says where it may be edited."""
    return f"# Copy of {CRD}, made by `make generate`. Edit that one.\n" + _read(root / CRD)


def photos_manifest(root: Path) -> str:
    """The robot's photos as a ConfigMap, so that a cluster can be given them with the job."""
    photos = sorted((root / PHOTOS).glob("*.png"))
    data = {photo.name: base64.b64encode(photo.read_bytes()).decode() for photo in photos}
    head = f"""# The photos in {PHOTOS}, made by `make generate`. For photos of your own:
#
#     kubectl create configmap NAME --from-file FOLDER
apiVersion: v1
kind: ConfigMap
metadata:
  name: robot-photos
binaryData:
"""
    return head + "".join(f"  {name}: {content}\n" for name, content in data.items())


OUTPUTS = (
    Output("runtime/dreambooth/api/dreamboothjobs.yaml", crd_copy),
    Output("charts/dreambooth-operator/files/dreamboothjobs.yaml", crd_copy),
    Output("docs/reference/manifest.md", lambda root: manifest_reference(_read(root / CRD))),
    Output("examples/kubernetes/robot/photos.yaml", photos_manifest),
)


def generate(root: Path) -> list[str]:
    """Writes what is stale; gives the paths written."""
    written = []
    for output in OUTPUTS:
        content, path = output.make(root), root / output.path
        if not path.exists() or _read(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            written.append(output.path)
    return written


def stale(root: Path) -> list[str]:
    """A diff, as text, for each file that is not what it would be made as."""
    diffs = []
    for output in OUTPUTS:
        path = root / output.path
        found = _read(path) if path.exists() else ""
        diff = difflib.unified_diff(
            found.splitlines(keepends=True),
            output.make(root).splitlines(keepends=True),
            f"{output.path} (found)",
            f"{output.path} (generated)",
        )
        if text := "".join(diff):
            diffs.append(text)
    return diffs


def main(arguments: list[str] | None = None) -> int:
    """Writes the files, or with `--check` says which are stale; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    if parser.parse_args(arguments).check:
        diffs = stale(ROOT)
        if diffs:
            print("\n".join(diffs))
            print("Generated files are stale: run `make generate`.", file=sys.stderr)
        return 1 if diffs else 0
    for path in generate(ROOT):
        print(path)
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
