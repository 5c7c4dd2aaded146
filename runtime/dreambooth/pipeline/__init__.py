"""One job from manifest to result, stage by stage."""

import os

# Ray reads these when it is imported, so they stand here, before anything can have imported it.
# A setting of the user's own goes first.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A thread that outlives Ray must not start another.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Messages of Ray's own about tasks and workers, which it prints to the standard output whatever
    # log_to_driver says, and there --json has its events. What matters comes as an exception.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}.items():
    os.environ.setdefault(_name, _value)
