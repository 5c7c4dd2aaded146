"""Jobs in words, and a world small enough to drive the planner by hand."""

import copy
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dreambooth.api.crd import job_schema
from dreambooth.api.schema import schema_problems
from dreambooth_operator.clock import to_text
from dreambooth_operator.config import (
    Backoff,
    Config,
    Placement,
    Pool,
    Runtime,
    Workspace,
)
from dreambooth_operator.job import Job, parse_job
from dreambooth_operator.kube.kinds import CLAIM, CONFIG_MAP, JOB, RAY_JOB, Object, Ref, ref_of
from dreambooth_operator.kube.port import Event
from dreambooth_operator.names import PROGRESS_KEY
from dreambooth_operator.planner.observed import KubeRay, Observed
from dreambooth_operator.planner.plan import Plan
from dreambooth_operator.planner.planning import plan

STATUS = job_schema()["properties"]["status"]
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def a_pool(name: str = "gpu", **changes: Any) -> Pool:
    """A pool of machines with one GPU."""
    pool = Pool(
        name=name,
        placement=Placement(node_selector={"pool": name}, tolerations=(TOLERATION,)),
        gpu_resource="nvidia.com/gpu",
        gpus=1,
        cpu="4",
        memory="16Gi",
        shared_memory=None,
        price=3.6,
        currency="EUR",
        max_workers=4,
    )
    return replace(pool, **changes)


def a_config(**changes: Any) -> Config:
    """Settings with two pools, of which gpu is the default, and a default volume."""
    config = Config(
        runtime=Runtime(image="example.com/runtime:1"),
        pools={"gpu": a_pool(), "draw": a_pool("draw", price=1.2)},
        default_pool="gpu",
        workspace=Workspace(claim_name="volume"),
        backoff=Backoff(first_seconds=10, max_seconds=100),
    )
    return replace(config, **changes)


@dataclass(frozen=True)
class AJob:
    """A DreamBoothJob in the making; each method gives another one."""

    spec: Object = field(default_factory=dict)
    name: str = "rex"
    uid: str = "uid-of-rex"

    def named(self, name: str, uid: str = "uid-of-rex") -> "AJob":
        return replace(self, name=name, uid=uid)

    def with_workers(self, workers: int, pool: str | None = None) -> "AJob":
        cluster = {"workers": workers} | ({"pool": pool} if pool else {})
        return self._with(cluster={**self.spec.get("cluster", {}), **cluster})

    def drawing_on(self, pool: str, workers: int = 1) -> "AJob":
        generation = {"pool": pool, "workers": workers}
        return self._with(cluster={**self.spec.get("cluster", {}), "generation": generation})

    def suspended(self) -> "AJob":
        return self._with(suspend=True)

    def in_queue(self, queue: str) -> "AJob":
        return self._with(queueName=queue)

    def with_retries(self, retries: int) -> "AJob":
        return self._with(retries=retries)

    def limited_to(self, **limits: float) -> "AJob":
        return self._with(limits=limits)

    def deleted_after(self, seconds: int) -> "AJob":
        return self._with(ttlSecondsAfterFinished=seconds)

    def on_volume(self, **workspace: str) -> "AJob":
        return self._with(workspace=workspace)

    def with_photos(self, **photos: Any) -> "AJob":
        return self._with(subject={"class": "dog", "photos": photos})

    def with_model(self, **model: Any) -> "AJob":
        return self._with(model=model)

    def with_prompts(self, *prompts: str) -> "AJob":
        return self._with(generation={"prompts": list(prompts)})

    def build(self) -> Object:
        """The object as the API has it after it was made."""
        obj = JOB.new("team", self.name)
        obj["metadata"] |= {"uid": self.uid, "generation": 1, "resourceVersion": "1"}
        subject = {"class": "dog", "photos": {"path": "subjects/rex"}}
        defaults = {"subject": subject, "retries": 3, "suspend": False, "cluster": {"workers": 1}}
        return {**obj, "spec": defaults | copy.deepcopy(self.spec)}

    def parsed(self) -> Job:
        """The job as the planner sees it."""
        return parse_job(self.build())

    def _with(self, **fields: Any) -> "AJob":
        return replace(self, spec={**self.spec, **fields})


def a_job() -> AJob:
    """The smallest job."""
    return AJob()


@dataclass
class World:
    """A job and its surroundings; `look` does what the reconciler does, without an API.

    Attributes:
        made: Names of all RayJobs that were ever made.
        told: All events.
        writes: How many writes there were.
    """

    job: Object
    config: Config = field(default_factory=a_config)
    now: datetime = NOON
    objects: dict[Ref, Object] = field(default_factory=dict)
    ray_jobs: list[Object] = field(default_factory=list)
    heads: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    kuberay: KubeRay = KubeRay.READY
    busy: int = 1
    made: list[str] = field(default_factory=list)
    told: list[Event] = field(default_factory=list)
    writes: int = 0
    deleted: bool = False

    @classmethod
    def of(cls, job: AJob, **fields: Any) -> "World":
        """A world with a job that was just made, and the default volume."""
        world = cls(job.build(), **fields)
        world.has_claim("volume")
        return world

    # What people and machines do.

    def has_claim(self, name: str, *modes: str) -> "World":
        spec = {"accessModes": list(modes or ("ReadWriteMany",))}
        self.objects[Ref(CLAIM, "team", name)] = CLAIM.new("team", name, spec=spec)
        return self

    def passes(self, seconds: float) -> "World":
        self.now += timedelta(seconds=seconds)
        return self

    def edits(self, **spec: Any) -> "World":
        self.job["spec"] |= spec
        self.job["metadata"]["generation"] += 1
        return self

    def ray(self, deployment: str, job: str = "", **status: Any) -> "World":
        """KubeRay says something of the current RayJob."""
        changed = {"jobDeploymentStatus": deployment, "jobStatus": job, **status}
        self.current_ray_job.setdefault("status", {}).update(changed)
        if deployment == "Running" and not self.heads:
            self.head_starts()
        return self

    def head_starts(self) -> "World":
        metadata = {"name": f"head-{to_text(self.now)}", "creationTimestamp": to_text(self.now)}
        self.heads = [{"metadata": metadata, "status": {"phase": "Running"}}]
        return self

    def head_dies(self) -> "World":
        self.heads = []
        return self

    def no_node_takes(self, *names: str, because: str) -> "World":
        """The scheduler finds no node for these pods of the job."""
        refusal = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": because,
            "lastTransitionTime": to_text(self.now),
        }
        status = {"phase": "Pending", "conditions": [refusal]}
        self.pods = [{"metadata": {"name": name}, "status": status} for name in names]
        return self

    def driver_tells(self, state: str = "Running", **record: Any) -> "World":
        """The driver of the current try patches its record."""
        moment = to_text(self.now)
        content = {"version": 1, "attempt": self.status["attempt"], "state": state}
        content |= {"updateTime": moment, "startTime": moment, **record}
        return self.progress_is(json.dumps(content))

    def progress_is(self, text: str) -> "World":
        names = parse_job(self.job).names
        ref = Ref(CONFIG_MAP, "team", names.progress_config_map)
        self.objects[ref]["data"] = {PROGRESS_KEY: text}
        return self

    def runs(self) -> "World":
        """Up to the driver's first word."""
        self.settle()
        self.ray("Running", "RUNNING").passes(5).driver_tells(stage="photos")
        return self.settle()

    def ray_jobs_go(self) -> "World":
        """KubeRay has taken down what was being deleted."""
        self.ray_jobs = [obj for obj in self.ray_jobs if "deletionTimestamp" not in obj["metadata"]]
        self.heads = self.heads if self.ray_jobs else []
        return self

    # What the operator does.

    def plan(self) -> Plan:
        """What the planner says now."""
        observed = Observed(
            dict(self.objects),
            tuple(self.ray_jobs),
            tuple(self.heads),
            self.kuberay,
            self.busy,
            tuple(self.pods),
        )
        return plan(parse_job(self.job), observed, self.now, self.config)

    def look(self) -> Plan:
        """One look: plan, and carry it out."""
        decided = self.plan()
        for obj in decided.apply:
            self._apply(copy.deepcopy(obj))
        for deletion in decided.delete:
            self._delete(deletion.ref, deletion.uid)
        if decided.status is not None:
            self.job["status"] = json.loads(json.dumps(decided.status, allow_nan=False))
            assert schema_problems(self.status, STATUS) == []
            self.writes += 1
        self.told += decided.events
        self.writes += len(decided.apply) + len(decided.delete) + len(decided.events)
        return decided

    def settle(self) -> "World":
        """Look until there is nothing to do at this moment; deleted RayJobs stay, dying."""
        for _ in range(20):
            if self.look().settled:
                return self
        raise AssertionError("the planner does not come to rest")

    @property
    def status(self) -> Object:
        found: Object = self.job.get("status", {})
        return found

    @property
    def phase(self) -> str:
        return str(self.status["phase"])

    @property
    def current_ray_job(self) -> Object:
        (found,) = [o for o in self.ray_jobs if o["metadata"]["name"] == self.status["rayJob"]]
        return found

    def condition(self, type_: str) -> Object:
        (found,) = [entry for entry in self.status["conditions"] if entry["type"] == type_]
        entry: Object = found
        return entry

    def reasons(self) -> list[str]:
        """Of all events so far."""
        return [str(event.reason) for event in self.told]

    def _apply(self, obj: Object) -> None:
        ref = ref_of(obj)
        obj["metadata"] |= {"uid": f"uid-of-{ref.name}", "creationTimestamp": to_text(self.now)}
        if ref.kind == RAY_JOB:
            alive = [one["metadata"]["name"] for one in self.ray_jobs]
            assert ref.name in alive or not alive, f"{ref.name} beside {alive}"
            self.made.append(ref.name)
            self.ray_jobs.append(obj)
        else:
            self.objects[ref] = {**self.objects.get(ref, {}), **obj}

    def _delete(self, ref: Ref, uid: str) -> None:
        if ref.kind == JOB:
            assert uid == self.job["metadata"]["uid"]
            self.deleted = True
            return
        for obj in self.ray_jobs:
            if obj["metadata"]["name"] == ref.name and obj["metadata"]["uid"] == uid:
                obj["metadata"]["deletionTimestamp"] = to_text(self.now)
