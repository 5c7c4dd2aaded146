"""Digests: the identity of inputs and outputs, always SHA-256 in hex."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dreambooth.processors import usable_cpus

# Read at a time. Each read waits for its turn where other threads compute in Python, so that many
# small ones of a large file would take as long as those do.
CHUNK_BYTES = 4 * 2**20


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(value: Any) -> str:
    """Digest of a JSON-able value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        chunk = memoryview(bytearray(min(CHUNK_BYTES, path.stat().st_size + 1)))
        while size := file.readinto(chunk):
            digest.update(chunk[:size])
    return digest.hexdigest()


def tree_digest(folder: Path) -> str:
    """Digest of a folder: the names and contents of all files in it, however deep."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(usable_cpus()) as threads:
        digests = threads.map(file_digest, files)
        named = zip(files, digests, strict=True)
        return digest_of([[str(file.relative_to(folder)), digest] for file, digest in named])
