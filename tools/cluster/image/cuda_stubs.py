"""Replace CUDA's libraries by empty ones, for an image that never sees a GPU.

The only Linux build of torch that its registry has links some 3 GB of CUDA libraries at
load time. A process without a GPU never calls them, but it can't start without them either:
so each is replaced by a library of the same name that has the functions torch links, every
one of which fails. The CUDA runtime itself (under a megabyte) stays: torch asks it how many
GPUs there are, and it truthfully says none.

Usage: cuda_stubs.py SITE_PACKAGES   (needs gcc and readelf)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

# Small, or asked at start: these stay as they are.
KEPT_BYTES = 8_000_000


def readelf(*arguments: str) -> list[list[str]]:
    """Return readelf's output as words a line."""
    done = subprocess.run(["readelf", "-W", *arguments], check=True, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()]


def needed(library: Path) -> set[str]:
    """Return the names of the libraries that one links."""
    return {words[-1].strip("[]") for words in readelf("-d", str(library)) if "(NEEDED)" in words}


def symbols(library: Path, *, defined: bool) -> dict[str, tuple[str, str]]:
    """Return the dynamic symbols that a library defines, or wants: their types and versions."""
    found = {}
    for words in readelf("--dyn-syms", str(library)):
        if len(words) >= 8 and words[0].rstrip(":").isdigit():
            kind, index, (name, _, version) = words[3], words[6], words[7].partition("@")
            if (index != "UND") == defined:
                found[name] = (kind, version.lstrip("@"))
    return found


def replace(library: Path, wanted: set[str]) -> None:
    """Put a library in the place of a real one that has only the wanted symbols, all failing."""
    code: list[str] = []
    versions: dict[str, list[str]] = {}
    for name, (kind, version) in sorted(symbols(library, defined=True).items()):
        if name in wanted:
            code.append(
                f"char {name}[4096];" if kind == "OBJECT" else f"int {name}(void) {{ return 1; }}"
            )
            versions.setdefault(version, []).append(f"{name};")
    # The dynamic linker insists on the versions that torch was linked with.
    script = [f"{name} {{ {' '.join(names)} }};" for name, names in versions.items() if name]
    library.unlink()
    with tempfile.TemporaryDirectory() as folder:
        source, versioned = Path(folder, "stubs.c"), Path(folder, "stubs.map")
        source.write_text("\n".join(code) + "\n", encoding="utf-8")
        versioned.write_text("\n".join(script) + "\n", encoding="utf-8")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}"]
            + ([f"-Wl,--version-script={versioned}"] if script else [])
            + ["-o", str(library), str(source)],
            check=True,
        )


def main(site_packages: Path) -> None:
    """Replace the large libraries that torch links, and remove the rest of CUDA."""
    torch = sorted((site_packages / "torch" / "lib").glob("*.so*"))
    links = set().union(*(needed(library) for library in torch))
    wanted = {name for library in torch for name in symbols(library, defined=False)}
    before = after = 0
    for file in sorted((site_packages / "nvidia").rglob("*")):
        if not file.is_file():
            continue
        size = file.stat().st_size
        before += size
        if file.name not in links:
            file.unlink()
            continue
        if size > KEPT_BYTES:
            replace(file, wanted)
        after += file.stat().st_size
    print(f"CUDA libraries: {before >> 20} MiB before, {after >> 20} MiB after")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
