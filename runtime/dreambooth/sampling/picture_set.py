"""A numbered set of pictures on the disk that is filled up to a count, whatever interrupts it.

A picture depends on the set's key and its index alone. A file that has its name is whole, so a
set never needs repair: what is there is kept, what is missing is made. `manifest.json` carries a
digest for each picture; one that no longer matches is made again.

Gated sets (class pictures) refuse bad candidates. An index then tries its next seed, and an index
is only settled when all lower ones are, so that the outcome does not depend on the order in which
candidates arrive.

A candidate that the model's safety checker flags is never on the disk; the manifest says that it
was. Its index tries its next seed, too, or stays empty where the very noise matters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from dreambooth.sampling.files import read_picture
from dreambooth.sampling.gate import Look, Verdict, given_up, judge, look_at
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


class Flagged(StrEnum):
    """What becomes of a picture that the safety checker flags."""

    REDRAWN = "redrawn"
    LEFT_OUT = "leftOut"


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
        prompt_field: Where the user gave the prompt, for messages.
        flagged: What becomes of pictures that the safety checker flags, if one looks at them.
        provenance: Goes into every PNG: model, job and the like.
    """

    folder: Path
    key: dict[str, Any]
    prompt: str
    seed: int
    count: int
    settings: SamplingSettings
    gated: bool
    prompt_field: str
    flagged: Flagged = Flagged.REDRAWN
    provenance: dict[str, Any] = field(default_factory=dict)

    def file(self, index: int, attempt: int) -> Path:
        """Where the candidate `attempt` of picture `index` is."""
        if self.gated:
            return self.folder / f"{index:05d}-{attempt}.png"
        return self.folder / (f"{index:04d}-{attempt}.png" if attempt else f"{index:04d}.png")


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
        self._left_out: set[int] = set()
        self._load()

    @property
    def files(self) -> list[Path]:
        """The accepted pictures in order: all that are not left out once the set is complete."""
        return [self.set.file(index, attempt) for index, attempt in self._settled_as()]

    @property
    def digests(self) -> list[str]:
        """The accepted pictures' digests in order."""
        return [self._candidates[candidate].digest for candidate in self._settled_as()]

    @property
    def of_first_noise(self) -> dict[int, Path]:
        """The accepted pictures that their first seed gave, by index.

        Another model with the same seeds has drawn the same index from the same noise.
        """
        return {i: self.set.file(i, 0) for i, attempt in self._settled_as() if attempt == 0}

    @property
    def complete(self) -> bool:
        """Whether all wanted pictures are there, or known to be left out."""
        return self._settled == self.set.count

    @property
    def present(self) -> int:
        """Number of wanted pictures that are left out or have a candidate not refused."""
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

    def flag(self, index: int, attempt: int) -> None:
        """Notes that the safety checker has flagged a candidate, which has not been written."""
        self._refused[index, attempt] = Verdict.FLAGGED

    def settle(self) -> None:
        """Judges what can be judged and writes the manifest.

        Raises:
            UserError: If an index has used up its attempts.
        """
        self._leave_out()
        for index in range(self.set.count):
            if index not in self._left_out:
                self._check_attempts(index)
        if self.set.gated:
            self._judge()
        else:
            there = (i for i in range(self.set.count) if not self._needs_candidate(i))
            self._accepted = {i: self._attempt(i) for i in there if i not in self._left_out}
        self._write_manifest()

    @property
    def _settled(self) -> int:
        index = 0
        while index < self.set.count and (index in self._accepted or index in self._left_out):
            index += 1
        return index

    def _settled_as(self) -> list[tuple[int, int]]:
        """Index and attempt of what is accepted, in order."""
        return [(i, self._accepted[i]) for i in range(self._settled) if i in self._accepted]

    def _leave_out(self) -> None:
        if self.set.flagged is Flagged.LEFT_OUT:
            flagged = (i for i in range(self.set.count) if (i, 0) in self._refused)
            self._left_out.update(flagged)

    def _attempt(self, index: int) -> int:
        attempt = 0
        while (index, attempt) in self._refused:
            attempt += 1
        return attempt

    def _needs_candidate(self, index: int) -> bool:
        attempt = self._attempt(index)
        if attempt and self.set.flagged is Flagged.LEFT_OUT:
            return False
        return (index, attempt) not in self._candidates

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
                self._refused[index, attempt] = verdict
                self._check_attempts(index)
            blocked = blocked or index not in self._accepted

    def _check_attempts(self, index: int) -> None:
        """Raises a UserError if no seed is left for `index`."""
        attempts = self._attempt(index)
        if attempts >= MAX_ATTEMPTS:
            what = f"picture {index} of {self.set.prompt!r}"
            verdict = self._refused[index, attempts - 1]
            raise given_up(what, verdict, attempts, self.set.prompt_field)

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
        for written, entry in entries.items():
            candidate = _NAME.fullmatch(written)
            if candidate is not None and entry.get("verdict") == Verdict.FLAGGED:
                self.flag(*_index_and_attempt(candidate))
        sweep_temporaries(folder, older_than=STALE_SECONDS)
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = _NAME.fullmatch(file.name)
            if name is None:
                continue
            index, attempt = _index_and_attempt(name)
            if index >= self.set.count:
                continue
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
        self._leave_out()
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
            pictures[candidate.file.name] = self._entry(index, attempt, candidate.digest, verdict)
        for (index, attempt), verdict in self._refused.items():
            if verdict is Verdict.FLAGGED:
                entry = self._entry(index, attempt, None, verdict)
                pictures[self.set.file(index, attempt).name] = entry
        write_json(
            self.set.folder / MANIFEST,
            {
                "key": digest_of(self.set.key),
                "madeFrom": self.set.key,
                "prompt": self.set.prompt,
                "pictures": pictures,
            },
        )

    def _entry(
        self, index: int, attempt: int, digest: str | None, verdict: Verdict | None
    ) -> dict[str, Any]:
        return {
            "sha256": digest,
            "seed": picture_seed(self.set.seed, self.set.prompt, index, attempt),
            "verdict": verdict.value if verdict else None,
        }


def _index_and_attempt(name: re.Match[str]) -> tuple[int, int]:
    return int(name["index"]), int(name["attempt"] or 0)
