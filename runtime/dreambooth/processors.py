"""How many CPUs this process may really use.

In a container the machine's cores are all visible, and the kernel throttles whoever computes with
more of them than the container's share. Everything that chooses a number of threads asks here.
"""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """CPUs that the scheduler lets this process use, at least one.

    That is the affinity mask, and in a container its CPU limit, rounded up (control groups of
    version 2 and 1).
    """
    allowed = len(os.sched_getaffinity(0))
    limit = _limit(cgroup)
    return allowed if limit is None else max(1, min(allowed, math.ceil(limit)))


def _limit(cgroup: Path) -> float | None:
    """CPUs' worth of time that the control group allows; None if it does not limit."""
    unified = _words(cgroup / "cpu.max")
    quota = unified[:1] or _words(cgroup / "cpu" / "cpu.cfs_quota_us")
    period = unified[1:2] or _words(cgroup / "cpu" / "cpu.cfs_period_us")
    try:
        used, of = int(quota[0]), int(period[0])
    except (IndexError, ValueError):
        return None
    return used / of if used > 0 and of > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
