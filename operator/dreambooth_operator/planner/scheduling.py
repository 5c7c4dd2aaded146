"""What the scheduler says of pods that no node takes."""

from collections.abc import Mapping
from typing import Any

from dreambooth_operator.clock import from_text, seconds_between
from dreambooth_operator.planner.observed import dying, mapping, name_of, text
from dreambooth_operator.planner.situation import Situation
from dreambooth_operator.reasons import Reason

MAX_MESSAGE = 600
# Every pod is without a node for a moment.
PATIENCE_SECONDS = 15.0


def unschedulable(situation: Situation) -> tuple[Reason, str] | None:
    """Why some pods of the try have no node, if they have had none for a while."""
    waiting = {
        name_of(pod): said
        for pod in situation.observed.pods
        if not dying(pod) and (said := _refusal(pod, situation)) is not None
    }
    if not waiting:
        return None
    said = waiting[min(waiting)].strip()[:MAX_MESSAGE].rstrip(".")
    count = f"{len(waiting)} pods" if len(waiting) > 1 else "1 pod"
    return Reason.UNSCHEDULABLE, f"No node takes {count} yet. The scheduler says: {said}."


def _refusal(pod: Mapping[str, Any], situation: Situation) -> str | None:
    conditions = mapping(pod, "status").get("conditions")
    for entry in conditions if isinstance(conditions, list) else ():
        if not isinstance(entry, Mapping) or text(entry, "type") != "PodScheduled":
            continue
        since = from_text(entry.get("lastTransitionTime"))
        refused = text(entry, "status") == "False" and text(entry, "reason") == "Unschedulable"
        long = since is None or seconds_between(since, situation.now) >= PATIENCE_SECONDS
        return text(entry, "message") if refused and long else None
    return None
