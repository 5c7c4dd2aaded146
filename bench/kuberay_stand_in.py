"""A stand-in for KubeRay and drivers that takes jobs through their lives as fast as they come."""

import asyncio
import json
import ssl
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tests.contract.control_plane import ControlPlane

JOBS = "/apis/dreambooth.dev/v1alpha1/namespaces/default/dreamboothjobs"
RAY_JOBS = "/apis/ray.io/v1/namespaces/default/rayjobs"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
STAGES = ("photos", "classImages", "train", "generate", "evaluate")
# Between two words of a driver.
STAGE_SECONDS = 2.0
AT_ONCE = 16
LONGEST_SECONDS = 1800.0


@dataclass
class StandIn:
    """Applies jobs and plays the rest of the cluster.

    Attributes:
        plane: The API server.
        jobs: How many jobs there shall be.
        applied: When each job was applied, by name.
        waits: Seconds from there until the watch told of its RayJob.
    """

    plane: ControlPlane
    jobs: int
    applied: dict[str, float] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)
    _lives: list[asyncio.Task[None]] = field(default_factory=list)

    async def live(self) -> list[float]:
        """Take all jobs through their lives; seconds to each one's RayJob."""
        context = ssl.create_default_context(cafile=str(self.plane.certificate))
        async with aiohttp.ClientSession(
            self.plane.url,
            connector=aiohttp.TCPConnector(ssl=context, limit=4 * AT_ONCE),
            headers={"Authorization": f"Bearer {self.plane.token}"},
            timeout=aiohttp.ClientTimeout(total=LONGEST_SECONDS),
        ) as session:
            await self._make_volume(session)
            async with asyncio.timeout(LONGEST_SECONDS), asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(session))
                await self._apply_all(session)
                while len(self.waits) < self.jobs:
                    await asyncio.sleep(0.2)
                await asyncio.gather(*self._lives)
                await self._all_over(session)
                watching.cancel()
        return list(self.waits.values())

    async def _make_volume(self, session: aiohttp.ClientSession) -> None:
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "team"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        await _ask(session, "POST", CLAIMS, claim)

    async def _apply_all(self, session: aiohttp.ClientSession) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def apply(name: str) -> None:
            job = {
                "apiVersion": "dreambooth.dev/v1alpha1",
                "kind": "DreamBoothJob",
                "metadata": {"name": name},
                "spec": {"subject": {"class": "dog", "photos": {"path": "rex"}}},
            }
            async with gate:
                await _ask(session, "POST", JOBS, job)
                self.applied[name] = time.monotonic()

        await asyncio.gather(*(apply(f"job-{number}") for number in range(self.jobs)))

    async def _watch(self, session: aiohttp.ClientSession) -> None:
        """Begin a life for each RayJob that is made."""
        query = {"watch": "1", "timeoutSeconds": str(int(LONGEST_SECONDS))}
        async with session.get(RAY_JOBS, params=query) as response:
            response.raise_for_status()
            # A RayJob's line is longer than a stream's readline takes.
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    change = json.loads(line)
                    if change["type"] == "ADDED":
                        self._begin(session, change["object"])

    def _begin(self, session: aiohttp.ClientSession, ray_job: Any) -> None:
        name = ray_job["metadata"]["labels"]["dreambooth.dev/job"]
        # The answer to who applied the job may come after the watch's word.
        now = time.monotonic()
        self.waits[name] = now - self.applied.get(name, now)
        self._lives.append(asyncio.ensure_future(self._life(session, ray_job["metadata"]["name"])))

    async def _life(self, session: aiohttp.ClientSession, name: str) -> None:
        status = f"{RAY_JOBS}/{name}/status"
        progress = f"{CONFIG_MAPS}/{name.rpartition('-')[0]}-progress"
        running = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
        await _merge(session, status, {"status": running})
        for number, _ in enumerate(STAGES):
            await _merge(session, progress, {"data": {"progress.json": _record(number)}})
            await asyncio.sleep(STAGE_SECONDS)
        last = _record(len(STAGES))
        await _merge(session, progress, {"data": {"progress.json": last}})
        over = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
        await _merge(session, status, {"status": over})

    async def _all_over(self, session: aiohttp.ClientSession) -> None:
        """Until every job has succeeded."""
        while True:
            listed = await _ask(session, "GET", JOBS, None)
            phases = [job.get("status", {}).get("phase") for job in listed["items"]]
            if phases == ["Succeeded"] * self.jobs:
                return
            await asyncio.sleep(1)


def _record(done: int) -> str:
    """What a driver tells that has done so many stages."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    over = done == len(STAGES)
    stages = [
        {
            "name": name,
            "state": "Succeeded" if place < done else "Running" if place == done else "Pending",
        }
        for place, name in enumerate(STAGES)
    ]
    return json.dumps(
        {
            "version": 1,
            "attempt": 1,
            "state": "Succeeded" if over else "Running",
            "updateTime": now,
            "startTime": now,
            "stage": STAGES[min(done, len(STAGES) - 1)],
            "stages": stages,
            "progress": {"percent": 20 * done, "step": 80 * done, "totalSteps": 400},
            "gpuSeconds": 2.0 * done,
        }
    )


async def _merge(session: aiohttp.ClientSession, path: str, patch: Any) -> Any:
    return await _ask(session, "PATCH", path, patch, "application/merge-patch+json")


async def _ask(
    session: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Any,
    content: str = "application/json",
) -> Any:
    """One request; its answer."""
    headers = {"Content-Type": content}
    async with session.request(method, path, json=body, headers=headers) as response:
        text = await response.text()
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {text}")
        return json.loads(text)
