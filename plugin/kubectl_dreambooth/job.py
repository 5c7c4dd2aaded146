"""A DreamBoothJob as kubectl prints it, read with care: the operator may be older or newer."""

from dataclasses import dataclass
from typing import Any

from kubectl_dreambooth.errors import PluginError
from kubectl_dreambooth.kubectl import Kubectl

RESOURCE = "dreamboothjobs.dreambooth.dev"
STAGES = {
    "photos": "Photos",
    "classImages": "Class images",
    "train": "Train",
    "generate": "Generate",
    "evaluate": "Evaluate",
}
OVER = ("Succeeded", "Failed")


@dataclass(frozen=True)
class JobView:
    """One job."""

    document: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self._metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        """Where it is."""
        return str(self._metadata.get("namespace", "default"))

    @property
    def uid(self) -> str:
        """Tells it from another one of the same name."""
        return str(self._metadata.get("uid", ""))

    @property
    def phase(self) -> str:
        """The state in one word."""
        return str(self.status.get("phase") or "Pending")

    @property
    def over(self) -> bool:
        """Whether it has succeeded or failed for good."""
        return self.phase in OVER

    @property
    def suspended(self) -> bool:
        """Whether it is asked to wait."""
        return bool(self.spec.get("suspend"))

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for."""
        return _mapping(self.document.get("spec"))

    @property
    def status(self) -> dict[str, Any]:
        """What became of it."""
        return _mapping(self.document.get("status"))

    @property
    def progress(self) -> dict[str, Any]:
        """How far it is."""
        return _mapping(self.status.get("progress"))

    @property
    def stages(self) -> list[tuple[str, dict[str, Any]]]:
        """All five in order: title, and what is known."""
        known = {
            str(stage.get("name")): stage
            for stage in self.status.get("stages") or []
            if isinstance(stage, dict)
        }
        return [(title, known.get(name, {})) for name, title in STAGES.items()]

    @property
    def outputs(self) -> dict[str, str]:
        """Where the results are on the workspace."""
        return {key: str(value) for key, value in _mapping(self.status.get("outputs")).items()}

    @property
    def folder(self) -> str:
        """The job's folder on the workspace."""
        return self.outputs.get("folder") or f"jobs/{self.name}-{self.uid}"

    @property
    def resolved(self) -> dict[str, Any]:
        """What was chosen where the manifest leaves a choice."""
        return _mapping(self.status.get("resolved"))

    def condition(self, kind: str) -> dict[str, Any]:
        """One of its conditions; empty if it does not have it."""
        for condition in self.status.get("conditions") or []:
            if isinstance(condition, dict) and condition.get("type") == kind:
                return condition
        return {}

    @property
    def why(self) -> str:
        """What the condition that matters now says, for people."""
        order = ["Succeeded"] if self.over else ["Accepted", "ClusterReady", "Running"]
        for kind in order:
            condition = self.condition(kind)
            if condition.get("status") in ("False", "Unknown") and condition.get("message"):
                return str(condition["message"])
        return ""

    @property
    def _metadata(self) -> dict[str, Any]:
        return _mapping(self.document.get("metadata"))


def read_job(kubectl: Kubectl, name: str) -> JobView:
    """The job of that name.

    Raises:
        KubectlError: If there is none, or it may not be read.
    """
    return JobView(_mapping(kubectl.json("get", RESOURCE, name)))


def read_jobs(kubectl: Kubectl) -> list[JobView]:
    """All jobs of the namespace."""
    items = _mapping(kubectl.json("get", RESOURCE)).get("items") or []
    return [JobView(_mapping(item)) for item in items]


def with_results(job: JobView) -> JobView:
    """The job, if it has something to fetch.

    Raises:
        PluginError: If it has not.
    """
    if not job.outputs.get("folder"):
        remedy = (
            "Look at kubectl dreambooth status."
            if job.over
            else f"Wait for it: kubectl dreambooth status {job.name} --watch"
        )
        raise PluginError(f"job {job.name} has no results ({job.phase})", remedy)
    return job


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
