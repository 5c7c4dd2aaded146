"""KubeRay 1.6.2 and the nodes below it, as far as a RayJob over HTTP can tell.

Each look at a RayJob makes at most one step, as KubeRay's reconciler does: New, Initializing,
Running, Complete or Failed, and Suspending and Suspended beside them. What it gets wrong is here
too: ValidationFailed is a dead end, and a driver whose head went away stays RUNNING for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from dreambooth_operator.kube.kinds import POD, RAY_JOB, Object, Ref
from tests.simulation.judgement import RAY_CLUSTER, place_of
from tests.simulation.server import ApiServer

MANAGER = "kuberay-operator"
FINALIZER = "ray.io/rayjob-finalizer"
_OVER = ("Complete", "Failed")


class Machines(Protocol):
    """What runs on the nodes of a cluster that is ready."""

    def submit(self, ray_job: Object) -> None:
        """Start the driver of a RayJob."""
        ...

    def stop(self, ray_job: Object) -> None:
        """Tell the driver of a RayJob to stop."""
        ...

    def answer(self, ray_job: Object) -> str | None:
        """Ray's status of the driver; None if the head does not answer."""
        ...


@dataclass
class Weather:
    """What the scenario has the machines do.

    Attributes:
        seconds_to_start: From a RayCluster's creation until its pods are ready; None is never.
        validation: KubeRay's objection to every RayJob; None if it has none.
    """

    seconds_to_start: float | None = 4
    validation: str | None = None


@dataclass
class KubeRay:
    """The actor.

    Attributes:
        submissions: How often the driver of each RayJob was submitted.
        clusters: Names of all RayClusters that ever were.
    """

    server: ApiServer
    now: Callable[[], datetime]
    machines: Machines
    weather: Weather = field(default_factory=Weather)
    submissions: dict[str, int] = field(default_factory=dict)
    clusters: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Make one step for every RayJob and RayCluster."""
        if RAY_JOB not in self.server.served:
            return
        for ray_job in self.server.find_all(RAY_JOB):
            self._step(ray_job)
        for cluster in self.server.find_all(RAY_CLUSTER):
            self._start_pods(cluster)

    @property
    def busy(self) -> bool:
        """Whether there are clusters, with which things happen in time."""
        return bool(self.server.find_all(RAY_CLUSTER))

    def _step(self, ray_job: Object) -> None:
        status = ray_job.get("status", {})
        state = status.get("jobDeploymentStatus", "")
        if "deletionTimestamp" in ray_job["metadata"]:
            self._let_go(ray_job)
        elif self.weather.validation:
            self._write(
                ray_job,
                jobDeploymentStatus="ValidationFailed",
                reason="ValidationFailed",
                message=self.weather.validation,
            )
        elif state == "":
            self._begin(ray_job)
        elif state in ("Initializing", "Running") and ray_job["spec"].get("suspend"):
            self._write(ray_job, jobDeploymentStatus="Suspending")
        elif state == "Initializing":
            self._provision(ray_job)
        elif state == "Running":
            self._poll(ray_job)
        elif state == "Suspending":
            self._take_down(ray_job)
            self._write(
                ray_job,
                jobDeploymentStatus="Suspended",
                **dict.fromkeys(("jobId", "rayClusterName", "rayClusterStatus", "rayJobInfo")),
                jobStatus="",
            )
        elif state == "Suspended" and not ray_job["spec"].get("suspend"):
            self._write(ray_job, jobDeploymentStatus="", jobStatus="")
        elif state in _OVER:
            # The operator always asks for shutdownAfterJobFinishes without delay.
            assert ray_job["spec"]["shutdownAfterJobFinishes"], "the cluster would stay for ever"
            self._take_down(ray_job)

    def _let_go(self, ray_job: Object) -> None:
        if ray_job.get("status", {}).get("jobStatus") in ("PENDING", "RUNNING"):
            self.machines.stop(ray_job)
        kept = [name for name in ray_job["metadata"]["finalizers"] if name != FINALIZER]
        self.server.patch(place_of(ray_job), {"metadata": {"finalizers": kept or None}}, MANAGER)

    def _begin(self, ray_job: Object) -> None:
        finalizers = ray_job["metadata"].get("finalizers", [])
        if FINALIZER not in finalizers:
            patch = {"metadata": {"finalizers": [*finalizers, FINALIZER]}}
            self.server.patch(place_of(ray_job), patch, MANAGER)
        name = f"{ray_job['metadata']['name']}-{len(self.clusters):05d}"
        self._write(
            ray_job,
            jobDeploymentStatus="Initializing",
            jobId=name,
            rayClusterName=name,
            startTime=self._time(),
        )

    def _provision(self, ray_job: Object) -> None:
        cluster = self._cluster(ray_job)
        if cluster is None:
            self._make_cluster(ray_job)
        elif cluster.get("status", {}).get("state") == "ready":
            self._write(ray_job, jobDeploymentStatus="Running", rayClusterStatus=cluster["status"])
        else:
            self._write(ray_job, rayClusterStatus=cluster.get("status", {}))

    def _make_cluster(self, ray_job: Object) -> None:
        metadata = ray_job["metadata"]
        name = ray_job["status"]["rayClusterName"]
        cluster = RAY_CLUSTER.new(
            metadata["namespace"], name, spec=ray_job["spec"]["rayClusterSpec"]
        )
        cluster["metadata"] |= {"labels": metadata["labels"], "ownerReferences": _owner(ray_job)}
        self.clusters.append(name)
        self.server.apply(place_of(cluster), cluster, MANAGER)

    def _start_pods(self, cluster: Object) -> None:
        """Make what pods there are too few of, and have them ready when it is time."""
        ready_at = self.weather.seconds_to_start
        age = (self.now() - _made(cluster)).total_seconds()
        up = ready_at is not None and age >= ready_at
        spec = cluster["spec"]
        groups = [("head", spec["headGroupSpec"]["template"], 1)]
        groups += [("worker", g["template"], g["replicas"]) for g in spec["workerGroupSpecs"]]
        first = cluster.get("status", {}).get("state") != "ready"
        for number, (role, template, count) in enumerate(groups):
            for index in range(count):
                # A head that went away comes back only where there are machines for it.
                if first or role == "worker":
                    self._keep_pod(cluster, template, f"{number}-{index}", role, up)
        if up and first:
            conditions = [{"type": "HeadPodReady", "status": "True", "reason": "Ready"}]
            status = {"state": "ready", "conditions": conditions}
            self.server.patch_status(place_of(cluster), status, MANAGER)

    def _keep_pod(
        self, cluster: Object, template: Object, number: str, role: str, up: bool
    ) -> None:
        metadata = cluster["metadata"]
        ref = Ref(POD, metadata["namespace"], f"{metadata['name']}-{number}")
        found = self.server.find(ref)
        if found is None:
            pod = POD.new(ref.namespace, ref.name, spec=template["spec"])
            labels = {"ray.io/cluster": metadata["name"], "ray.io/node-type": role}
            pod["metadata"] |= {
                "labels": template["metadata"]["labels"] | labels,
                "ownerReferences": _owner(cluster),
            }
            found = self.server.apply(ref, pod, MANAGER) | {}
        phase = "Running" if up else "Pending"
        if found.get("status", {}).get("phase") != phase:
            self.server.patch(ref, {"status": {"phase": phase}}, "kubelet")

    def _poll(self, ray_job: Object) -> None:
        name = ray_job["metadata"]["name"]
        known = ray_job["status"].get("jobStatus", "")
        if known == "" and self.machines.answer(ray_job) is not None:
            self.submissions[name] = self.submissions.get(name, 0) + 1
            self.machines.submit(ray_job)
            self._write(ray_job, jobStatus="RUNNING", rayJobInfo={"startTime": self._time()})
            return
        answer = self.machines.answer(ray_job)
        if answer is None or answer == known:
            return
        end: dict[str, Any] = {"rayJobInfo": {"endTime": self._time()}, "endTime": self._time()}
        if answer == "FAILED":
            message = "Job entrypoint command failed with exit code 2"
            end |= {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": message}
        else:
            end |= {"jobDeploymentStatus": "Complete"}
        self._write(ray_job, jobStatus=answer, **end)

    def _take_down(self, ray_job: Object) -> None:
        cluster = self._cluster(ray_job)
        if cluster is not None:
            self.server.delete(place_of(cluster))

    def _cluster(self, ray_job: Object) -> Object | None:
        name = ray_job["status"].get("rayClusterName", "")
        return self.server.find(Ref(RAY_CLUSTER, ray_job["metadata"]["namespace"], name))

    def _write(self, ray_job: Object, **status: Any) -> None:
        self.server.patch_status(place_of(ray_job), status, MANAGER)

    def _time(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _owner(obj: Object) -> list[Object]:
    metadata = obj["metadata"]
    return [
        {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def _made(obj: Object) -> datetime:
    return datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
