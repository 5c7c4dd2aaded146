"""Whether the watch works: is everything heard of that happened?

A dead watch looks like a quiet cluster. So now and then all jobs' versions are read from the API;
what is newer than anything the watch told, and stays so until the next time, was missed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class WatchHealth:
    """Compares what the watch told with what the API has.

    Attributes:
        heard: The newest version of each job that the watch told.
        missed_since: When a change was first known that has not been heard of yet.
    """

    heard: dict[str, int] = field(default_factory=dict)
    missed_since: float | None = None
    _expected: dict[str, int] = field(default_factory=dict)
    _checked: float = 0.0

    def hear(self, key: str, version: str) -> None:
        """The watch told of a job's version."""
        self.heard[key] = max(self.heard.get(key, 0), _number(version))

    def lose(self, key: str) -> None:
        """The watch told that a job is gone."""
        self.heard.pop(key, None)
        self._expected.pop(key, None)

    def check(self, versions: Mapping[str, str], now: float) -> set[str]:
        """Compare with the versions that the API has now.

        Args:
            versions: Of all jobs, by key.
            now: Seconds of a clock that never goes back.

        Returns:
            Keys of jobs whose changes have not been heard of, to be looked at anyway.
        """
        there = {key: _number(version) for key, version in versions.items()}
        overdue = {
            key
            for key, version in self._expected.items()
            if key in there and self.heard.get(key, 0) < version
        }
        if not overdue:
            self.missed_since = None
        elif self.missed_since is None:
            self.missed_since = self._checked
        self._expected, self._checked = there, now
        for key in set(self.heard) - set(there):
            del self.heard[key]
        return {key for key, version in there.items() if self.heard.get(key, 0) < version}

    def lag(self, now: float) -> float:
        """For how many seconds changes have been missed; 0 if none are."""
        return 0.0 if self.missed_since is None else max(0.0, now - self.missed_since)


def _number(version: str) -> int:
    """Versions are numbers that grow, as Kubernetes promises since 1.35 and did before."""
    return int(version) if version.isascii() and version.isdigit() else 0
