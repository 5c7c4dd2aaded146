"""Check licences: of what the images install, and of the pictures and weights in the repository.

Prints one line a finding and exits 1 if there is any. Reads only what is installed and checked in.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from email.message import Message
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What an Apache-2.0 project can depend on: permissive, or copyleft a file at a time (MPL). NVIDIA's
# libraries come with torch on Linux, may be redistributed and are used unchanged.
ACCEPTED = re.compile(
    r"Apache|\bMIT\b|BSD|\bISC\b|\bMPL\b|Mozilla Public|PSF-2|Python Software Foundation"
    r"|NVIDIA Proprietary|LicenseRef-NVIDIA"
)
REFUSED = re.compile(r"GPL|General Public|SSPL|BUSL|Business Source|Non-?Commercial|CC-BY-NC", re.I)
NO_CONTENT = {"cuda-toolkit"}  # only a list of NVIDIA's packages

WORKS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg", ".safetensors", ".npz", ".ttf", ".woff2"}


def main() -> int:
    """Print what is wrong with the licences; 0 when nothing is."""
    locks = [(ROOT / "requirements" / name).read_text() for name in ("runtime.txt", "operator.txt")]
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    findings = [
        *unsuitable_packages(
            sorted(set(re.findall(r"^([a-z0-9][a-z0-9.-]*)==", "".join(locks), re.M)))
        ),
        *works_without_notice((ROOT / "NOTICE").read_text(), listed.stdout.splitlines()),
    ]
    print("\n".join(findings) if findings else "Licences: nothing to mend.")
    return 1 if findings else 0


def unsuitable_packages(names: Iterable[str]) -> list[str]:
    """Installed packages whose licence is unknown or not one this project can depend on."""
    findings = []
    for name in names:
        try:
            licence = _licence(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue  # locked for another system
        if name not in NO_CONTENT and (REFUSED.search(licence) or not ACCEPTED.search(licence)):
            findings.append(
                f"{name}: licence {licence or 'unknown'!r} is not on the accepted list."
            )
    return findings


def works_without_notice(notice: str, files: Iterable[str]) -> list[str]:
    """Pictures and weights that no `Files:` line of NOTICE covers."""
    patterns = re.findall(r"^Files: (.+)$", notice, re.M)
    return [
        f"{file}: NOTICE doesn't say whose work it is. Add it to a paragraph's `Files:` line."
        for file in files
        if Path(file).suffix in WORKS and not any(fnmatch(file, pattern) for pattern in patterns)
    ]


def _licence(distribution: metadata.Distribution) -> str:
    """The licence as the package states it: SPDX expression, classifiers, or its licence file."""
    about: Message = distribution.metadata  # type: ignore[assignment]
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    named = "; ".join(c.rpartition(":: ")[2] for c in classifiers) or about.get("License", "")
    if named not in ("", "UNKNOWN"):
        return str(named).splitlines()[0]
    for file in distribution.files or []:
        if file.name.upper().startswith("LICEN"):
            return " ".join(file.read_text().split()[:8])
    return ""


if __name__ == "__main__":
    sys.exit(main())
