"""The drivers on the simulated nodes: each tells its progress as the real one does.

A driver finds its way by what its head pod's template gives it, as the real one finds it by its
environment and its mounts; what is missing there shows as a driver that cannot start.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dreambooth_operator.kube.errors import NotFound
from dreambooth_operator.kube.kinds import CONFIG_MAP, POD, SERVICE_ACCOUNT, Object, Ref, ref_of
from tests.simulation.server import ApiServer

MANAGER = "dreambooth-driver"
_STAGES = ("photos", "classImages", "train", "generate", "evaluate")

End = Literal["success", "user", "infrastructure", "silent"]


@dataclass(frozen=True)
class Life:
    """How the driver of one try fares.

    Attributes:
        seconds: How long it lives.
        end: How it ends: with success, a failure that it tells, or without a word.
    """

    seconds: float = 40
    end: End = "success"


@dataclass
class Driver:
    """A driver that runs.

    Attributes:
        ray_job: The RayJob it was submitted by.
        environment: As its container's.
        began: When.
        told: When it last told something.
        state: As Ray sees it.
    """

    ray_job: Object
    environment: dict[str, str]
    life: Life
    began: datetime
    resumed_from: int | None
    told: datetime | None = None
    state: str = "RUNNING"


@dataclass
class Nodes:
    """All drivers, and the volume that they share.

    Attributes:
        lives: How each try's driver fares; the last one holds for all tries after it.
        steps: Optimizer steps that are on the volume, by the job's uid.
    """

    server: ApiServer
    now: Callable[[], datetime]
    lives: tuple[Life, ...] = (Life(),)
    steps: dict[str, int] = field(default_factory=dict)
    drivers: dict[str, Driver] = field(default_factory=dict)

    def submit(self, ray_job: Object) -> None:
        """See `Machines`."""
        template = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        (container,) = template["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        job = self._job_document(ray_job["metadata"]["namespace"], template)
        account = template["serviceAccountName"]
        self.server.get(Ref(SERVICE_ACCOUNT, ray_job["metadata"]["namespace"], account))
        attempt = int(environment["DREAMBOOTH_ATTEMPT"])
        self.drivers[ray_job["metadata"]["uid"]] = Driver(
            ray_job,
            environment,
            self.lives[min(attempt, len(self.lives)) - 1],
            self.now(),
            self.steps.get(job["metadata"]["uid"]),
        )

    def stop(self, ray_job: Object) -> None:
        """See `Machines`."""
        driver = self.drivers.get(ray_job["metadata"]["uid"])
        if driver and driver.state == "RUNNING":
            driver.state = "STOPPED"
            self._tell(driver, "Interrupted")

    def answer(self, ray_job: Object) -> str | None:
        """See `Machines`."""
        if not self._head_runs(ray_job):
            return None
        driver = self.drivers.get(ray_job["metadata"]["uid"])
        return driver.state if driver else ""

    def live(self) -> None:
        """Let every driver do what it is time for."""
        for driver in self.drivers.values():
            if driver.state != "RUNNING":
                continue
            if not self._head_runs(driver.ray_job):
                driver.state = "GONE"
                continue
            age = (self.now() - driver.began).total_seconds()
            interval = float(driver.environment["DREAMBOOTH_PROGRESS_INTERVAL"])
            if age >= driver.life.seconds:
                self._end(driver)
            elif driver.told is None or (self.now() - driver.told).total_seconds() >= interval:
                self._tell(driver, "Running")

    @property
    def running(self) -> list[str]:
        """Names of the RayJobs whose drivers run."""
        found = [driver for driver in self.drivers.values() if driver.state == "RUNNING"]
        return [driver.ray_job["metadata"]["name"] for driver in found]

    def _head_runs(self, ray_job: Object) -> bool:
        current = self.server.find(ref_of(ray_job))
        if current is None or current["metadata"]["uid"] != ray_job["metadata"]["uid"]:
            return False
        labels = {
            "ray.io/cluster": current.get("status", {}).get("rayClusterName") or "none",
            "ray.io/node-type": "head",
        }
        return bool(self.server.find_all(POD, ray_job["metadata"]["namespace"], labels))

    def _job_document(self, namespace: str, template: Object) -> Object:
        """The job as it is mounted."""
        (volume,) = [each for each in template["volumes"] if each["name"] == "job"]
        config_map = self.server.get(Ref(CONFIG_MAP, namespace, volume["configMap"]["name"]))
        found: Object = json.loads(config_map["data"]["job.json"])
        return found

    def _end(self, driver: Driver) -> None:
        end = driver.life.end
        if end == "success":
            driver.state = "SUCCEEDED"
            self._tell(driver, "Succeeded")
            return
        driver.state = "FAILED"
        if end == "user":
            self._tell(driver, "Failed", _failure("user", "NoPhotos", "spec.subject.photos"))
        elif end == "infrastructure":
            self._tell(driver, "Failed", _failure("infrastructure", "VolumeFull", None))

    def _tell(self, driver: Driver, state: str, failure: Object | None = None) -> None:
        driver.told = self.now()
        record = _record(driver, state, self.now(), failure)
        uid = driver.ray_job["metadata"]["ownerReferences"][0]["uid"]
        self.steps[uid] = max(self.steps.get(uid, 0), record["progress"]["step"])
        name = driver.environment["DREAMBOOTH_PROGRESS_CONFIGMAP"]
        ref = Ref(CONFIG_MAP, driver.environment["DREAMBOOTH_NAMESPACE"], name)
        try:
            self.server.patch(ref, {"data": {"progress.json": json.dumps(record)}}, MANAGER)
        except NotFound:
            # Someone deleted it; the next word may find it again.
            driver.told = None if state == "Running" else driver.told


def _failure(kind: str, reason: str, at: str | None) -> Object:
    return {"class": kind, "reason": reason, "message": "Told by the driver. Mend it."} | (
        {"field": at} if at else {}
    )


def _record(driver: Driver, state: str, now: datetime, failure: Object | None) -> Any:
    age = (now - driver.began).total_seconds()
    share = min(1.0, age / driver.life.seconds)
    done = int(share * len(_STAGES))
    steps = max(int(share * 400), driver.resumed_from or 0)
    gpus = float(driver.environment["DREAMBOOTH_GPUS"])
    record: Object = {
        "version": 1,
        "attempt": int(driver.environment["DREAMBOOTH_ATTEMPT"]),
        "state": state,
        "updateTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "startTime": driver.began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "stage": _STAGES[min(done, len(_STAGES) - 1)],
        "stages": [
            {
                "name": name,
                "state": "Succeeded" if place < done else "Running" if place == done else "Pending",
                "done": min(100, max(0, int(share * 500) - 100 * place)),
                "total": 100,
                "unit": "steps",
            }
            for place, name in enumerate(_STAGES)
        ],
        "progress": {
            "percent": int(share * 100),
            "etaSeconds": int(driver.life.seconds - age),
            "step": steps,
            "totalSteps": 400,
            "loss": 0.1,
        },
        "gpuSeconds": age * gpus,
    }
    if driver.resumed_from:
        record["resumedFromStep"] = driver.resumed_from
    if state == "Succeeded":
        record["quality"] = {"encoder": "efficientnet-lite0", "subjectFidelity": 0.7}
        record["outputs"] = {"folder": "jobs/rex", "model": "jobs/rex/model"}
    if failure:
        record["failure"] = failure
    return record
