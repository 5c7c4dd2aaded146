"""What conditions say in each state of a job, so that they never contradict each other."""

from dreambooth_operator.planner.situation import FALSE, TRUE, UNKNOWN, State
from dreambooth_operator.reasons import Condition, Reason

Conditions = dict[Condition, State]

ACCEPTED = State(TRUE, Reason.ACCEPTED, "The job can run here.")
NOT_SUSPENDED = State(FALSE, Reason.NOT_SUSPENDED, "spec.suspend is false.")
UNFINISHED = State(UNKNOWN, Reason.UNFINISHED, "The job is not finished.")
NOT_RUNNING = State(FALSE, Reason.NOT_RUNNING, "No driver runs.")
RELEASED = State(FALSE, Reason.RELEASED, "The machines are given back.")
ASKED = State(FALSE, Reason.PROVISIONING, "KubeRay is making the cluster.")
NOT_STARTED = State(FALSE, Reason.NOT_STARTED, "No machines were asked for yet.")


def waiting(cluster: State, *, accepted: State = ACCEPTED) -> Conditions:
    """A job that does not run, for the reason that `cluster` or `accepted` has."""
    return {
        Condition.ACCEPTED: accepted,
        Condition.CLUSTER_READY: cluster,
        Condition.RUNNING: NOT_RUNNING,
        Condition.SUSPENDED: NOT_SUSPENDED,
        Condition.SUCCEEDED: UNFINISHED,
    }


def running(driver: State, ready: str) -> Conditions:
    """A job that has its machines."""
    return {
        Condition.ACCEPTED: ACCEPTED,
        Condition.CLUSTER_READY: State(TRUE, Reason.CLUSTER_READY, ready),
        Condition.RUNNING: driver,
        Condition.SUSPENDED: NOT_SUSPENDED,
        Condition.SUCCEEDED: UNFINISHED,
    }


def suspended(state: State, accepted: State) -> Conditions:
    """A job that is to wait because spec.suspend says so."""
    return {
        Condition.ACCEPTED: accepted,
        Condition.CLUSTER_READY: RELEASED,
        Condition.RUNNING: NOT_RUNNING,
        Condition.SUSPENDED: state,
        Condition.SUCCEEDED: UNFINISHED,
    }


def over(succeeded: State) -> Conditions:
    """A job whose try has ended: for good, or to be tried again."""
    return {
        Condition.CLUSTER_READY: RELEASED,
        Condition.RUNNING: NOT_RUNNING,
        Condition.SUSPENDED: NOT_SUSPENDED,
        Condition.SUCCEEDED: succeeded,
    }


def phase(states: Conditions) -> str:
    """The conditions in one word, for people."""
    succeeded, suspend = states[Condition.SUCCEEDED], states[Condition.SUSPENDED]
    cluster, driver = states[Condition.CLUSTER_READY], states[Condition.RUNNING]
    if succeeded.status != UNKNOWN:
        return "Succeeded" if succeeded.status == TRUE else "Failed"
    if suspend.status == TRUE or suspend.reason == Reason.SUSPENDING:
        return "Suspended" if suspend.status == TRUE else "Suspending"
    if driver.status == TRUE:
        return "Running"
    if states[Condition.ACCEPTED].status == FALSE:
        return "Pending"
    if succeeded.reason == Reason.RETRYING:
        return "Retrying"
    if cluster.reason == Reason.QUEUED:
        return "Queued"
    provisioning = (
        Reason.PROVISIONING,
        Reason.PODS_REFUSED,
        Reason.UNSCHEDULABLE,
        Reason.CHILD_REFUSED,
    )
    return "Provisioning" if cluster.reason in provisioning else "Pending"
