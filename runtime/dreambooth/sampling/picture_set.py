"""A numbered set of pictures on the disk that is filled up to a count, whatever interrupts it.

A picture depends on the set's key and its index alone. A file that has its name is whole, so a
set never needs repair: what is there is kept, what is missing is made. `manifest.json` carries a
digest for each picture; one that no longer matches is made again.

Gated sets (class pictures) refuse bad candidates. An index then tries its next seed, and an index
is only settled when all lower ones are, so that the outcome does not depend on the order in which
candidates arrive.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreambooth.errors import UserError
from dreambooth.sampling.files import read_picture
from dreambooth.sampling.gate import Look, Verdict, judge, look_at
from dreambooth.sampling.settings import PictureRequest, SamplingSettings, picture_seed
from dreambooth.workspace.atomic import read_json, remove_tree, sweep_temporaries, write_json
from dreambooth.workspace.digest import digest_of, file_digest

MANIFEST = "manifest.json"
# A prompt whose candidates are refused this often does not work; more seeds would not help.
MAX_ATTEMPTS = 6
# Sets in the cache are shared: a younger temporary file may be another job's picture.
STALE_SECONDS = 3600.0
# What `PictureSet.file` gives. Anything else in the folder, a write that was cut off for one, is
# none of ours.
_NAME = re.compile(r"(?P<index>\d{4,})(?:-(?P<attempt>\d+))?\.png")


@dataclass(frozen=True)
class PictureSet:
    """What a set is.

    Attributes:
        folder: Where it lives.
        key: JSON-able value of everything that determines the pixels, the model's digest included.
        prompt: The prompt of all its pictures, placeholders filled in.
        seed: The user's seed; a picture's own follows from it.
        count: How many pictures are wanted.
        settings: The sampler.
        gated: Whether bad candidates are refused.
        provenance: Goes into every PNG: model, job and the like.
    """

    folder: Path
    key: dict[str, Any]
    prompt: str
    seed: int
    count: int
    settings: SamplingSettings
    gated: bool
    provenance: dict[str, Any] = field(default_factory=dict)

    def file(self, index: int, attempt: int) -> Path:
        """Where the candidate `attempt` of picture `index` is."""
        name = f"{index:05d}-{attempt}.png" if self.gated else f"{index:04d}.png"
        return self.folder / name


@dataclass
class _Candidate:
    file: Path
    digest: str
    look: Look | None = None


class PictureSetState:
    """A set as it is on the disk, and what is still to be made."""

    def __init__(self, pictures: PictureSet) -> None:
        self.set = pictures
        self._candidates: dict[tuple[int, int], _Candidate] = {}
        self._refused: dict[tuple[int, int], Verdict] = {}
        self._accepted: dict[int, int] = {}
        self._load()

    @property
    def files(self) -> list[Path]:
        """The accepted pictures in order; all `count` of them once the set is complete."""
        return [self.set.file(i, self._accepted[i]) for i in range(self._settled)]

    @property
    def digests(self) -> list[str]:
        """The accepted pictures' digests in order."""
        return [self._candidates[i, self._accepted[i]].digest for i in range(self._settled)]

    @property
    def complete(self) -> bool:
        """Whether all wanted pictures are there."""
        return self._settled == self.set.count

    @property
    def present(self) -> int:
        """Number of wanted pictures that have a candidate not refused."""
        return sum(not self._needs_candidate(i) for i in range(self.set.count))

    @property
    def refused(self) -> dict[str, int]:
        """How many candidates were refused, by verdict."""
        counts: dict[str, int] = {}
        for (index, _), verdict in self._refused.items():
            if index < self.set.count:
                counts[verdict.value] = counts.get(verdict.value, 0) + 1
        return counts

    def requests(self) -> Iterator[PictureRequest]:
        """The pictures to make next."""
        for index in range(self.set.count):
            if self._needs_candidate(index):
                attempt = self._attempt(index)
                seed = picture_seed(self.set.seed, self.set.prompt, index, attempt)
                yield PictureRequest(index, attempt, self.set.prompt, seed)

    def add(self, index: int, attempt: int, digest: str, look: Look | None = None) -> None:
        """Notes that a candidate has been written; without its `look` the file will be read."""
        self._candidates[index, attempt] = _Candidate(self.set.file(index, attempt), digest, look)

    def settle(self) -> None:
        """Judges what can be judged and writes the manifest.

        Raises:
            UserError: If an index has used up its attempts.
        """
        if self.set.gated:
            self._judge()
        else:
            self._accepted = {i: 0 for i in range(self.set.count) if (i, 0) in self._candidates}
        self._write_manifest()

    @property
    def _settled(self) -> int:
        index = 0
        while index < self.set.count and index in self._accepted:
            index += 1
        return index

    def _attempt(self, index: int) -> int:
        attempt = 0
        while (index, attempt) in self._refused:
            attempt += 1
        return attempt

    def _needs_candidate(self, index: int) -> bool:
        return (index, self._attempt(index)) not in self._candidates

    def _judge(self) -> None:
        looks: list[Look] = []
        blocked = False
        for index in range(self.set.count):
            if not blocked and index in self._accepted:
                looks.append(self._look(index, self._accepted[index]))
                continue
            while not self._needs_candidate(index):
                attempt = self._attempt(index)
                # Behind an index that is not settled only the picture itself can be judged.
                look = self._look(index, attempt)
                verdict = judge(look, [] if blocked else looks)
                if verdict is Verdict.ACCEPTED:
                    if not blocked:
                        self._accepted[index] = attempt
                        looks.append(look)
                    break
                self._refuse(index, attempt, verdict)
            blocked = blocked or index not in self._accepted

    def _refuse(self, index: int, attempt: int, verdict: Verdict) -> None:
        self._refused[index, attempt] = verdict
        if attempt + 1 >= MAX_ATTEMPTS:
            raise UserError(
                f"picture {index} of {self.set.prompt!r} came out {verdict.value} with "
                f"{MAX_ATTEMPTS} different seeds",
                field="spec.classImages.prompt",
                remedy="Change the prompt, the guidance or the number of steps, or use another "
                "base model.",
                reason="ClassImagesRefused",
            )

    def _look(self, index: int, attempt: int) -> Look:
        candidate = self._candidates[index, attempt]
        if candidate.look is None:
            candidate.look = look_at(read_picture(candidate.file))
        return candidate.look

    def _load(self) -> None:
        folder = self.set.folder
        known_key, entries = self._read_manifest()
        if known_key not in (None, digest_of(self.set.key)):
            remove_tree(folder)
            entries = {}
        sweep_temporaries(folder, older_than=STALE_SECONDS)
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = _NAME.fullmatch(file.name)
            if name is None or int(name["index"]) >= self.set.count:
                continue
            index, attempt = int(name["index"]), int(name["attempt"] or 0)
            digest = file_digest(file)
            known = entries.get(file.name, {})
            if known.get("sha256", digest) != digest:
                file.unlink()
                continue
            self._candidates[index, attempt] = _Candidate(file, digest)
            verdict = known.get("verdict")
            if verdict == Verdict.ACCEPTED:
                self._accepted[index] = attempt
            elif verdict is not None:
                self._refused[index, attempt] = Verdict(verdict)
        if any(self._needs_candidate(i) for i in range(self.set.count)):
            return
        if not self.complete:
            self.settle()

    def _read_manifest(self) -> tuple[str | None, dict[str, dict[str, Any]]]:
        """The key it was made from and its entries by file; nothing of one that is damaged."""
        value = read_json(self.set.folder / MANIFEST)
        manifest: dict[str, Any] = value if isinstance(value, dict) else {}
        pictures = manifest.get("pictures")
        return (manifest.get("key"), pictures) if isinstance(pictures, dict) else (None, {})

    def _write_manifest(self) -> None:
        _, pictures = self._read_manifest()
        for (index, attempt), candidate in self._candidates.items():
            verdict = self._refused.get((index, attempt))
            if verdict is None and self._accepted.get(index) == attempt:
                verdict = Verdict.ACCEPTED
            pictures[candidate.file.name] = {
                "sha256": candidate.digest,
                "seed": picture_seed(self.set.seed, self.set.prompt, index, attempt),
                "verdict": verdict.value if verdict else None,
            }
        write_json(
            self.set.folder / MANIFEST,
            {
                "key": digest_of(self.set.key),
                "madeFrom": self.set.key,
                "prompt": self.set.prompt,
                "pictures": pictures,
            },
        )
