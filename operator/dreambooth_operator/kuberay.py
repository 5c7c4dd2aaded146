"""Whether KubeRay is there and new enough, asked of the API without any permission beyond RayJobs.

KubeRay publishes its version nowhere that the operator may read. What its RayJobs can hold tells:
a field that came with 1.6 is refused, in a strict dry run, by everything older.
"""

import logging
from dataclasses import dataclass

from dreambooth_operator.kube.errors import Forbidden, Invalid, KindNotServed, KubeError
from dreambooth_operator.kube.kinds import RAY_JOB
from dreambooth_operator.kube.port import KubeApi
from dreambooth_operator.planner.observed import KubeRay

logger = logging.getLogger(__name__)

_PROBE_NAME = "dreambooth-version-check"
_SINCE_1_6 = "preRunningDeadlineSeconds"


@dataclass
class KubeRayCheck:
    """What is known of KubeRay.

    Attributes:
        state: The answer to the last question.
    """

    state: KubeRay = KubeRay.READY

    async def ask(self, api: KubeApi, namespace: str) -> KubeRay:
        """Ask the API; what cannot be told counts as ready, and shows when RayJobs are made."""
        try:
            await api.check(RAY_JOB.new(namespace, _PROBE_NAME, spec=_spec()))
            self.state = KubeRay.READY
        except KindNotServed:
            self.state = KubeRay.MISSING
        except Invalid as error:
            self.state = KubeRay.TOO_OLD if _SINCE_1_6 in error.message else KubeRay.READY
        except Forbidden as error:
            logger.warning("KubeRay's version is unknown: %s", error)
        except KubeError as error:
            logger.warning("KubeRay's version is unknown yet: %s", error)
        return self.state


def _spec() -> dict[str, object]:
    pod = {"spec": {"containers": [{"name": "ray-head", "image": "none"}]}}
    return {
        "entrypoint": "true",
        "suspend": True,
        "shutdownAfterJobFinishes": True,
        _SINCE_1_6: 60,
        "rayClusterSpec": {"headGroupSpec": {"rayStartParams": {}, "template": pod}},
    }
