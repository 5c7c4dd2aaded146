"""All children of a job together, and whether one differs from what is there."""

from collections.abc import Mapping
from typing import Any

from dreambooth_operator.children.access import role, role_binding, service_account
from dreambooth_operator.children.claim import claim
from dreambooth_operator.children.cluster import Cluster
from dreambooth_operator.children.documents import job_config_map, progress_config_map
from dreambooth_operator.children.network import network_policy
from dreambooth_operator.config import Config
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import (
    CLAIM,
    CONFIG_MAP,
    NETWORK_POLICY,
    ROLE,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Object,
    Ref,
    ref_of,
)
from dreambooth_operator.names import Names


def lasting_children(job: Job, cluster: Cluster, config: Config) -> list[Object]:
    """The children that stay from the first try to the job's deletion, in the order to make."""
    children = [
        service_account(job),
        role(job),
        role_binding(job),
        job_config_map(job),
        progress_config_map(job),
    ]
    if config.network.enabled:
        children.append(network_policy(job, config.network))
    if cluster.owned:
        children.append(claim(job, cluster))
    return children


def lasting_refs(names: Names) -> list[Ref]:
    """Where the lasting children are, all that a job can have."""
    places = (
        (SERVICE_ACCOUNT, names.base),
        (ROLE, names.base),
        (ROLE_BINDING, names.base),
        (CONFIG_MAP, names.job_config_map),
        (CONFIG_MAP, names.progress_config_map),
        (NETWORK_POLICY, names.base),
        (CLAIM, names.claim),
    )
    return [Ref(kind, names.namespace, name) for kind, name in places]


def outdated(wanted: Object, found: Mapping[Ref, Object]) -> bool:
    """Whether a child has to be applied: it is not there, or not as wanted.

    What others added to it is theirs. A claim is left alone once it exists: people may enlarge it,
    and nothing else of it can change.
    """
    there = found.get(ref_of(wanted))
    if there is None:
        return True
    if there.get("metadata", {}).get("deletionTimestamp") or wanted["kind"] == CLAIM.name:
        return False
    return not _covers(there, wanted)


def _covers(there: Any, wanted: Any) -> bool:
    """Whether `there` has all that is wanted."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            key in there and _covers(there[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(_covers(a, b) for a, b in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)
