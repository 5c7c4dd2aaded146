"""A RayJob as the operator makes it: HTTPMode, token, head without work, workers on GPUs."""

from typing import Any

from tests.e2e.kube import GPU_TOLERATION, RESTRICTED

SCRIPT = """
import json, pathlib, tempfile
import ray, ray.train, torch
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

ray.init()
rows = ray.data.range(1000).map_batches(lambda batch: {"id": batch["id"] * 2}).count()
assert ray.cluster_resources()["GPU"] == 2, ray.cluster_resources()

def train(_):
    model = ray.train.torch.prepare_model(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        loss = model(torch.ones(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        world = torch.distributed.get_world_size()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), f"{folder}/model.pt")
            checkpoint = Checkpoint.from_directory(folder)
            first = ray.train.get_context().get_world_rank() == 0
            ray.train.report({"loss": loss.item(), "world_size": world},
                             checkpoint=checkpoint if first else None)

result = TorchTrainer(
    train,
    scaling_config=ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD",
                                 resources_per_worker={"CPU": 1}),
    run_config=RunConfig(name="e2e", storage_path="/shared/runs"),
).fit()
summary = {"rows": rows, "world_size": result.metrics["world_size"]}
pathlib.Path("/shared/result.json").write_text(json.dumps(summary))
print(summary)
"""


def a_ray_job(name: str, *, image: str, claim: str) -> list[dict[str, Any]]:
    """Return the objects of a job that uses Ray Data and trains on two workers."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-script"},
            "data": {"train.py": SCRIPT},
        },
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": name},
            "spec": {
                "submissionMode": "HTTPMode",
                "entrypoint": "python3 /script/train.py",
                "shutdownAfterJobFinishes": True,
                "backoffLimit": 0,
                "rayClusterSpec": {
                    "rayVersion": "2.60.0",
                    "authOptions": {"mode": "token"},
                    "headGroupSpec": {
                        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                        "template": _pod("ray-head", name, image, claim, memory="3Gi"),
                    },
                    "workerGroupSpecs": [
                        {
                            "groupName": "gpu",
                            "replicas": 2,
                            "minReplicas": 2,
                            "maxReplicas": 2,
                            "rayStartParams": {},
                            "template": _pod("ray-worker", name, image, claim, memory="3Gi", gpu=1),
                        }
                    ],
                },
            },
        },
    ]


def _pod(
    container: str, job: str, image: str, claim: str, *, memory: str, gpu: int = 0
) -> dict[str, Any]:
    limits: dict[str, str | int] = {"cpu": "1", "memory": memory}
    placement: dict[str, Any] = {"nodeSelector": {"kubernetes.io/hostname": "cpu-0"}}
    if gpu:
        limits["nvidia.com/gpu"] = gpu
        placement = {
            "nodeSelector": {"nvidia.com/gpu.present": "true"},
            "tolerations": [GPU_TOLERATION],
        }
    ports = [("gcs-server", 6379), ("dashboard", 8265), ("client", 10001)]
    return {
        "spec": {
            **placement,
            "securityContext": {"fsGroup": 100, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 5,
            "volumes": [
                {"name": "shared", "persistentVolumeClaim": {"claimName": claim}},
                {"name": "script", "configMap": {"name": f"{job}-script"}},
            ],
            "containers": [
                {
                    "name": container,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": RESTRICTED,
                    "resources": {
                        "limits": limits,
                        "requests": {"cpu": "300m", "memory": "1Gi"},
                    },
                    "env": [{"name": "RAY_USAGE_STATS_ENABLED", "value": "0"}],
                    "ports": [{"name": port, "containerPort": number} for port, number in ports]
                    if not gpu
                    else [],
                    "volumeMounts": [
                        {"name": "shared", "mountPath": "/shared"},
                        {"name": "script", "mountPath": "/script"},
                    ],
                }
            ],
        },
    }
