"""What a job is made of: restricted, owned, and without user's text in it."""

import json
from typing import Any

import pytest

from dreambooth_operator.children import pods
from dreambooth_operator.children.cluster import Cluster
from dreambooth_operator.children.intent import lasting_children
from dreambooth_operator.children.pods import Try
from dreambooth_operator.children.ray_job import ENTRYPOINT, ray_job
from dreambooth_operator.config import Config, Head, Network, Placement, Runtime
from dreambooth_operator.kube.kinds import Object
from dreambooth_operator.planner.acceptance import resolve
from tests.unit.operator.builders import TOLERATION, AJob, a_config, a_job, a_pool

FIRST = Try(number=1, interval=10, gpu_seconds_used=0.0, gpu_seconds_limit=None)


def ray_job_of(job: AJob, config: Config | None = None) -> Object:
    config = config or a_config()
    parsed = job.parsed()
    cluster = resolve(parsed, config)
    assert isinstance(cluster, Cluster)
    return ray_job(parsed, cluster, FIRST, config)


def children_of(job: AJob, config: Config | None = None) -> list[Object]:
    config = config or a_config()
    parsed = job.parsed()
    cluster = resolve(parsed, config)
    assert isinstance(cluster, Cluster)
    return [*lasting_children(parsed, cluster, config), ray_job(parsed, cluster, FIRST, config)]


def head_of(obj: Object) -> Object:
    spec: Object = obj["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return spec


def groups_of(obj: Object) -> list[Object]:
    groups: list[Object] = obj["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return groups


def pods_of(obj: Object) -> list[Object]:
    return [head_of(obj), *(group["template"]["spec"] for group in groups_of(obj))]


def volumes(pod: Object) -> dict[str, Object]:
    return {volume["name"]: volume for volume in pod["volumes"]}


def mounts(pod: Object) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}


def environment(pod: Object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}


EVERYTHING = (
    a_job()
    .with_workers(2)
    .drawing_on("draw", 2)
    .with_photos(secret={"name": "photos"})
    .with_model(repo="a/b", revision="c", secretRef={"name": "hub-token"})
)


@pytest.mark.parametrize("pod", pods_of(ray_job_of(EVERYTHING)))
def test_every_pod_keeps_the_restricted_pod_security_standard(pod: Object) -> None:
    own = pod["securityContext"]
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] == 1000
    assert own["fsGroup"] == 100
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


def test_only_the_head_has_a_token_and_a_service_account() -> None:
    obj = ray_job_of(EVERYTHING)
    head, *workers = pods_of(obj)
    assert head["serviceAccountName"] == obj["metadata"]["name"].removesuffix("-1")
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts(head)
    for pod in (head, *workers):
        assert pod["automountServiceAccountToken"] is False
    for pod in workers:
        assert "serviceAccountName" not in pod
        assert not any("projected" in volume for volume in pod["volumes"])


def test_the_driver_may_only_touch_its_own_progress() -> None:
    (role,) = [child for child in children_of(a_job()) if child["kind"] == "Role"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [role["metadata"]["name"] + "-progress"],
            "verbs": ["get", "patch"],
        }
    ]


def test_requests_are_limits_and_the_head_offers_ray_no_cpus() -> None:
    obj = ray_job_of(a_job())
    for pod in pods_of(obj):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
    head = obj["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head_of(obj)["containers"][0]["resources"]["limits"]


def test_workers_go_where_their_pool_is() -> None:
    pool = a_pool(
        placement=Placement({"zone": "a"}, (TOLERATION,), "batch", "nvidia"),
        gpu_resource="amd.com/gpu",
        gpus=2,
        shared_memory="8Gi",
    )
    obj = ray_job_of(a_job().with_workers(3), a_config(pools={"gpu": pool}))
    (group,) = groups_of(obj)
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 3)
    assert group["rayStartParams"] == {"num-gpus": "2"}
    pod = group["template"]["spec"]
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["tolerations"] == [TOLERATION]
    assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("batch", "nvidia")
    assert pod["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert volumes(pod)["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert mounts(pod)["/dev/shm"] == "shared-memory"
    assert environment(pod)["DREAMBOOTH_GPUS"] == "6"


def test_the_head_goes_where_the_administrator_wants_it() -> None:
    head = Head(cpu="500m", memory="2Gi", placement=Placement({"pool": "cpu"}))
    runtime = Runtime("r/i@sha256:1", "2.60.1", "Always", ("registry",))
    obj = ray_job_of(a_job(), a_config(head=head, runtime=runtime))
    pod = head_of(obj)
    assert pod["nodeSelector"] == {"pool": "cpu"}
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "2Gi"}
    for each in pods_of(obj):
        assert each["imagePullSecrets"] == [{"name": "registry"}]
        assert each["containers"][0]["image"] == "r/i@sha256:1"
        assert each["containers"][0]["imagePullPolicy"] == "Always"
    assert obj["spec"]["rayClusterSpec"]["rayVersion"] == "2.60.1"


def test_a_second_pool_is_a_group_that_only_draws() -> None:
    training, drawing = groups_of(ray_job_of(a_job().with_workers(2).drawing_on("draw", 3)))
    assert (training["groupName"], drawing["groupName"]) == ("training", "drawing")
    # Ray reads what is between the outer quotes, which the shell takes away.
    assert json.loads(json.loads(training["rayStartParams"]["resources"])) == {"training": 1}
    assert json.loads(json.loads(drawing["rayStartParams"]["resources"])) == {"drawing": 1}
    assert drawing["replicas"] == 3
    assert drawing["template"]["spec"]["nodeSelector"] == {"pool": "draw"}


def test_a_pool_without_gpus_asks_for_none() -> None:
    obj = ray_job_of(a_job(), a_config(pools={"gpu": a_pool(gpus=0)}))
    (group,) = groups_of(obj)
    assert group["rayStartParams"] == {}
    assert set(group["template"]["spec"]["containers"][0]["resources"]["limits"]) == {
        "cpu",
        "memory",
    }
    assert environment(head_of(obj))["DREAMBOOTH_GPUS"] == "0"


def test_kuberay_submits_once_over_http_with_a_token_and_takes_the_cluster_down() -> None:
    spec = ray_job_of(a_job())["spec"]
    assert spec["submissionMode"] == "HTTPMode"
    assert spec["backoffLimit"] == 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "enableInTreeAutoscaling" not in spec["rayClusterSpec"]
    assert not set("'\"`$\\;&|<>(){}*?[]~#!\n") & set(spec["entrypoint"])


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"configMap": {"name": "pics"}}, {"configMap": {"name": "pics"}}),
        ({"secret": {"name": "pics"}}, {"secret": {"secretName": "pics"}}),
    ],
)
def test_photos_of_the_cluster_are_mounted_where_the_runtime_looks(
    source: dict[str, Any], volume: dict[str, Any]
) -> None:
    (kind,) = source
    for pod in pods_of(ray_job_of(a_job().with_photos(**source))):
        assert mounts(pod)[f"/etc/dreambooth/photos/{kind}/pics"] == "photos"
        assert volumes(pod)["photos"] == {"name": "photos", **volume}
        assert environment(pod)["DREAMBOOTH_MOUNTS"] == "/etc/dreambooth/photos"


def test_secrets_are_named_and_never_read() -> None:
    job = a_job().with_photos(uri="s3://b/p", secretRef={"name": "bucket"})
    job = job.with_model(repo="a/b", revision="c", secretRef={"name": "hub"})
    for pod in pods_of(ray_job_of(job)):
        assert pod["containers"][0]["envFrom"] == [
            {"secretRef": {"name": "hub"}},
            {"secretRef": {"name": "bucket"}},
        ]


def test_users_text_is_in_the_jobs_config_map_and_nowhere_else() -> None:
    evil = "a {token} {class} $(id) `id` \"quoted\" 'quoted'; rm -rf /\nnew line"
    job = a_job().with_prompts(evil).with_photos(uri="https://example.com/$(id)")
    for child in children_of(job):
        text = json.dumps(child)
        if child["metadata"]["name"].endswith("-job"):
            document = json.loads(child["data"]["job.json"])
            assert document["spec"]["generation"]["prompts"] == [evil]
            assert document["metadata"] == {"name": "rex", "namespace": "team", "uid": "uid-of-rex"}
        else:
            assert "$(id)" not in text
            assert "rm -rf" not in text


def test_every_child_is_the_jobs_and_goes_with_it() -> None:
    for child in children_of(a_job().on_volume(size="1Gi")):
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-of-rex"
        assert owner["controller"] is True
        assert child["metadata"]["labels"]["dreambooth.dev/job"] == "rex"


def test_pods_are_reached_by_each_other_and_by_those_let_in() -> None:
    peer = {"ipBlock": {"cidr": "10.0.0.1/32"}}
    network = Network(dashboard_peers=(peer,), metrics_peers=(peer,))
    (policy,) = [
        child
        for child in children_of(a_job(), a_config(network=network))
        if child["kind"] == "NetworkPolicy"
    ]
    among, dashboard, metrics = policy["spec"]["ingress"]
    assert among["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    assert policy["spec"]["podSelector"] == {
        "matchLabels": {"dreambooth.dev/job-uid": "uid-of-rex"}
    }
    assert (dashboard["from"], dashboard["ports"][0]["port"]) == ([peer], 8265)
    assert metrics["ports"][0]["port"] == 8080


def test_a_network_policy_can_be_left_to_others() -> None:
    kinds = [child["kind"] for child in children_of(a_job(), a_config(network=Network(False)))]
    assert "NetworkPolicy" not in kinds


def test_the_driver_is_stopped_by_its_fixed_command() -> None:
    hook = head_of(ray_job_of(a_job()))["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[:2] == ["/bin/sh", "-c"]
    # The pattern finds the driver's command and not the shell that looks for it.
    assert "[d]" + ENTRYPOINT[1:].split("/")[0].strip() in hook[2]


def test_workers_outlast_the_drivers_clean_stop_and_then_give_their_gpus_back_soon() -> None:
    obj = ray_job_of(a_job())
    (group,) = groups_of(obj)
    worker, head = group["template"]["spec"], head_of(obj)
    stop = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    waits = int(stop[-1].removeprefix("sleep "))
    assert 0 < waits < worker["terminationGracePeriodSeconds"] <= 20
    # Stopping the driver alone may take as long as Ray waits for it.
    assert head["terminationGracePeriodSeconds"] >= 2 * pods.DRIVER_STOP_SECONDS
