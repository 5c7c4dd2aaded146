"""The administrator's settings in simulations: one pool, short waits."""

from dreambooth_operator.config import Backoff, Config, Placement, Pool, Runtime

CONFIG = Config(
    runtime=Runtime("registry.example/dreambooth-runtime:test"),
    pools={
        "a100": Pool(
            name="a100",
            placement=Placement(),
            gpu_resource="nvidia.com/gpu",
            gpus=1,
            cpu="4",
            memory="16Gi",
            shared_memory=None,
            price=3.0,
            currency="USD",
            max_workers=8,
        )
    },
    default_pool="a100",
    backoff=Backoff(first_seconds=5, max_seconds=20),
    resync_seconds=120,
)
