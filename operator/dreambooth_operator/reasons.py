"""The words for why: conditions, attempts and events use these, and those of the runtime.

They are part of the API: programs match them. docs/reference/reasons.md explains each, and a test
keeps the two alike.
"""

from enum import StrEnum


class Condition(StrEnum):
    """Types of conditions, in the order that status has them."""

    ACCEPTED = "Accepted"
    CLUSTER_READY = "ClusterReady"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"


class FailureClass(StrEnum):
    """Whose failure ended a try."""

    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    BUDGET = "budget"
    DEADLINE = "deadline"


class Reason(StrEnum):
    """Why a condition is as it is, why a try ended, what an event is about."""

    # Accepted
    ACCEPTED = "Accepted"
    UNKNOWN_POOL = "UnknownPool"
    NO_POOL = "NoPool"
    TOO_MANY_WORKERS = "TooManyWorkers"
    NO_WORKSPACE = "NoWorkspace"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_SHARED = "ClaimNotShared"
    PHOTOS_CONFIG_MAP_NOT_FOUND = "PhotosConfigMapNotFound"
    KUBERAY_NOT_FOUND = "KubeRayNotFound"
    KUBERAY_TOO_OLD = "KubeRayTooOld"
    INVALID_JOB = "InvalidJob"

    # ClusterReady
    NOT_STARTED = "NotStarted"
    CLEANING_UP = "CleaningUp"
    CHILD_REFUSED = "ChildRefused"
    QUEUED = "Queued"
    PROVISIONING = "Provisioning"
    PODS_REFUSED = "PodsRefused"
    UNSCHEDULABLE = "Unschedulable"
    CLUSTER_READY = "ClusterReady"
    RELEASED = "Released"

    # Running
    NOT_RUNNING = "NotRunning"
    STARTING = "Starting"
    RUNNING = "Running"
    DRIVER_SILENT = "DriverSilent"

    # Suspended
    NOT_SUSPENDED = "NotSuspended"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"

    # Succeeded, while it is open
    UNFINISHED = "Unfinished"
    RETRYING = "Retrying"
    # and when it is not
    SUCCEEDED = "Succeeded"

    # A try ended without a failure
    PREEMPTED = "Preempted"
    RAY_JOB_CHANGED = "RayJobChanged"
    EARLIER_ATTEMPTS = "EarlierAttempts"

    # A try failed by the machines
    HEAD_LOST = "HeadLost"
    HEAD_UNREACHABLE = "HeadUnreachable"
    DRIVER_FAILED = "DriverFailed"
    DRIVER_STOPPED = "DriverStopped"
    SUBMISSION_FAILED = "SubmissionFailed"
    RAY_JOB_REFUSED = "RayJobRefused"
    RAY_JOB_FAILED = "RayJobFailed"
    INTERRUPTED = "Interrupted"
    TOO_MANY_ATTEMPTS = "TooManyAttempts"

    # A limit was reached
    GPU_HOURS_REACHED = "GpuHoursReached"
    PROVISIONING_TIMEOUT = "ProvisioningTimeout"
    RUN_TIMEOUT = "RunTimeout"

    # Only in events
    ATTEMPT_STARTED = "AttemptStarted"
    STAGE_STARTED = "StageStarted"
    WARNED = "Warned"
