"""The local cluster is a real one: what users rely on works, and it comes and goes cleanly."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from localcluster import cgroups, machines
from tests.e2e.kube import (
    IMAGE,
    Cluster,
    CommandFailed,
    Kubectl,
    a_claim,
    a_pod,
    eventually,
    host_state,
    tool,
)
from tests.e2e.ray_job import a_ray_job

SLEEP = ("sleep", "600")
SERVE = ("python3", "-m", "http.server", "8000", "--directory", "/etc")


def running(kubectl: Kubectl, *names: str) -> None:
    """Wait until pods run."""
    kubectl.wait("--for=condition=Ready", *(f"pod/{name}" for name in names), seconds=180)


def fetch(kubectl: Kubectl, pod: str, url: str, seconds: int = 5) -> str:
    """Fetch a page from inside a pod; raises CommandFailed if that fails."""
    code = f"import urllib.request as u; print(u.urlopen('{url}', timeout={seconds}).status)"
    return kubectl("exec", pod, "--", "python3", "-c", code).strip()


def test_both_nodes_are_ready_and_report_the_pinned_version(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.kubectl.list("nodes")}
    assert set(nodes) >= {"cpu-0", "gpu-0"}
    cluster.kubectl.wait("--for=condition=Ready", "node/cpu-0", "node/gpu-0", seconds=60)
    gpu = nodes["gpu-0"]
    assert gpu["status"]["allocatable"]["nvidia.com/gpu"] == "2"
    assert gpu["metadata"]["labels"]["nvidia.com/gpu.present"] == "true"
    assert [t["key"] for t in gpu["spec"]["taints"]] == ["nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in nodes["cpu-0"]["status"]["allocatable"]
    versions = {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes.values()}
    server = cluster.kubectl("version", "-o", "json")
    assert len(versions) == 1 and re.search(rf'"gitVersion": "{versions.pop()}"', server)


def test_a_service_is_found_by_name_from_the_other_node(kubectl: Kubectl) -> None:
    kubectl.apply(
        a_pod("server", *SERVE, node="gpu-0", labels={"app": "server"}),
        a_pod("client", *SLEEP, node="cpu-0"),
        a_pod("neighbour", *SLEEP, node="gpu-0"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "pages"},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]},
        },
    )
    running(kubectl, "server", "client", "neighbour")
    url = f"http://pages.{kubectl.namespace}.svc.cluster.local/hostname"
    for pod in ("client", "neighbour"):
        eventually(f"{pod} reaches {url}", lambda pod=pod: reaches(kubectl, pod, url), 30)  # type: ignore[misc]


def reaches(kubectl: Kubectl, pod: str, url: str) -> bool:
    """Tell whether a pod gets a page."""
    try:
        return fetch(kubectl, pod, url) == "200"
    except CommandFailed:
        return False


def test_a_network_policy_is_enforced(kubectl: Kubectl) -> None:
    kubectl.apply(
        a_pod("server", *SERVE, node="gpu-0", labels={"app": "server"}),
        a_pod("friend", *SLEEP, node="cpu-0", labels={"role": "friend"}),
        a_pod("stranger", *SLEEP, node="cpu-0"),
        a_pod("near-stranger", *SLEEP, node="gpu-0"),
    )
    running(kubectl, "server", "friend", "stranger", "near-stranger")
    url = f"http://{kubectl.get('pod', 'server')['status']['podIP']}:8000/hostname"
    for pod in ("friend", "stranger", "near-stranger"):
        assert reaches(kubectl, pod, url), f"{pod} is stopped without a policy"
    kubectl.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "friends-only"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}],
            },
        }
    )
    for pod in ("stranger", "near-stranger"):
        eventually(f"{pod} is stopped", lambda pod=pod: not reaches(kubectl, pod, url), 30)  # type: ignore[misc]
    assert reaches(kubectl, "friend", url)


def test_the_restricted_standard_refuses_a_privileged_pod(kubectl: Kubectl) -> None:
    pod = a_pod("bad", *SLEEP)
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        kubectl.apply(pod)


def test_what_one_node_writes_to_a_claim_the_other_reads(kubectl: Kubectl) -> None:
    kubectl.apply(a_claim("data"))
    kubectl.apply(a_pod("writer", "sh", "-c", "id > /shared/who", node="cpu-0", claim="data"))
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", "pod/writer", seconds=180)
    kubectl("delete", "pod", "writer")
    kubectl.apply(a_pod("reader", "cat", "/shared/who", node="gpu-0", claim="data"))
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", "pod/reader", seconds=180)
    assert "uid=1000" in kubectl("logs", "reader")


def test_a_service_account_may_do_nothing_until_it_is_allowed_to(kubectl: Kubectl) -> None:
    account = f"--as=system:serviceaccount:{kubectl.namespace}:default"
    with pytest.raises(CommandFailed, match="cannot list resource"):
        kubectl("get", "secrets", account)
    kubectl("create", "role", "reads", "--verb=list", "--resource=secrets")
    kubectl(
        "create",
        "rolebinding",
        "reads",
        "--role=reads",
        f"--serviceaccount={kubectl.namespace}:default",
    )
    eventually("the role counts", lambda: allowed(kubectl, account), 10)


def allowed(kubectl: Kubectl, account: str) -> bool:
    """Tell whether an account may list secrets."""
    try:
        kubectl("get", "secrets", account)
    except CommandFailed:
        return False
    return True


def test_a_kubelet_may_not_touch_another_node(cluster: Cluster) -> None:
    kubelet = ("--as=system:node:gpu-0", "--as-group=system:nodes")
    with pytest.raises(CommandFailed, match=r"only its own Node object|not allowed to modify node"):
        cluster.kubectl("label", "node", "cpu-0", "mine=true", *kubelet)


def test_logs_exec_and_port_forward(kubectl: Kubectl) -> None:
    kubectl.apply(a_pod("server", "sh", "-c", f"echo hello; exec {' '.join(SERVE)}", node="gpu-0"))
    running(kubectl, "server")
    assert kubectl("logs", "server").startswith("hello")
    assert "uid=1000" in kubectl("exec", "server", "--", "id")
    with (
        port_forward(kubectl, "pod/server", 8000) as url,
        urllib.request.urlopen(f"{url}/hostname", timeout=10) as page,
    ):
        assert page.status == 200


@contextmanager
def port_forward(kubectl: Kubectl, target: str, port: int) -> Iterator[str]:
    """Forward a local port, any free one, to a pod."""
    with subprocess.Popen(
        kubectl.argv("port-forward", target, f":{port}"), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found, "port-forward said nothing"
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


@pytest.mark.timeout(1200)
def test_a_ray_job_trains_on_two_gpu_workers_and_leaves_its_result(kubectl: Kubectl) -> None:
    kubectl.apply(a_claim("results"), *a_ray_job("train", image=IMAGE, claim="results"))

    def status() -> dict[str, object]:
        found: dict[str, object] = kubectl.get("rayjob", "train").get("status", {})
        return found

    placed: dict[str, str] = {}

    def ended() -> bool:
        for pod in kubectl.list("pods", "-l", "ray.io/node-type"):
            if name := pod["spec"].get("nodeName"):
                placed[pod["metadata"]["name"]] = name
        return status().get("jobDeploymentStatus") in ("Complete", "Failed", "ValidationFailed")

    try:
        eventually("the job ends", ended, 900, interval=3)
        assert status().get("jobStatus") == "SUCCEEDED", status()
    except (AssertionError, pytest.fail.Exception):
        print(kubectl.story())
        print(kubectl("logs", "-l", "ray.io/node-type=head", "--tail=60"))
        raise
    assert sorted(placed.values()) == ["cpu-0", "gpu-0", "gpu-0"]
    eventually(
        "its cluster is deleted",
        lambda: (
            not kubectl.list("raycluster") and not kubectl.list("pods", "-l", "ray.io/node-type")
        ),
        120,
    )
    kubectl.apply(
        a_pod(
            "reader",
            "sh",
            "-c",
            "cat /shared/result.json; ls -R /shared",
            node="cpu-0",
            claim="results",
        )
    )
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", "pod/reader", seconds=120)
    log = kubectl("logs", "reader")
    assert '"world_size": 2' in log and '"rows": 1000' in log
    assert "model.pt" in log


# --- what only makes sense on this machine's own cluster -----------------------------------


@pytest.mark.disruptive
def test_starting_it_again_changes_nothing_and_says_so(local: Kubectl) -> None:
    processes = re.findall(r"process (\d+)", tool("status"))
    assert "nothing to do" in tool("up")
    assert "images unchanged" in tool("images")
    assert re.findall(r"process (\d+)", tool("status")) == processes


@pytest.mark.disruptive
def test_a_stopped_node_is_noticed_and_comes_back(local: Kubectl) -> None:
    tool("node", "stop", "gpu-0")
    try:
        local.wait("--for=condition=Ready=Unknown", "node/gpu-0", seconds=90)
        assert "stopped" in tool("status")
    finally:
        tool("node", "start", "gpu-0")
    local.wait("--for=condition=Ready", "node/gpu-0", seconds=30)
    assert local.get("node", "gpu-0")["status"]["allocatable"]["nvidia.com/gpu"] == "2"


@pytest.mark.disruptive
@pytest.mark.timeout(900)
def test_any_killed_process_is_started_again_and_no_object_is_lost(local: Kubectl) -> None:
    local("create", "configmap", "precious", "--from-literal=kept=yes")
    services = re.findall(r"^(\S+) +running, process (\d+)", tool("status"), re.MULTILINE)
    assert len(services) == 12
    for name, pid in services:
        subprocess.run(["kill", "-KILL", pid], check=True)
        tool("up")
        assert re.search(rf"^{name} +running", tool("status"), re.MULTILINE), name
        assert local.get("configmap", "precious")["data"] == {"kept": "yes"}
    local("delete", "configmap", "precious")


@pytest.mark.disruptive
@pytest.mark.timeout(600)
def test_a_reboot_loses_no_object_and_no_volume(local: Kubectl, kubectl: Kubectl) -> None:
    kubectl.apply(a_claim("data"), a_pod("writer", "sh", "-c", "id > /shared/who", claim="data"))
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", "pod/writer", seconds=180)
    lose_power()
    assert "NOT RUNNING" in tool("status", status=1) or "not running" in tool("status", status=1)
    tool("up")
    kubectl.apply(a_pod("reader", "cat", "/shared/who", node="gpu-0", claim="data"))
    kubectl.wait("--for=jsonpath={.status.phase}=Succeeded", "pod/reader", seconds=180)
    assert "uid=1000" in kubectl("logs", "reader")


def lose_power() -> None:
    """Take from the cluster what a reboot takes: processes, namespaces, mounts, devices, rules."""
    cgroups.kill()
    machines.release_host()
    cgroups.remove()


@pytest.mark.disruptive
@pytest.mark.final
@pytest.mark.timeout(1200)
def test_down_leaves_nothing_behind_even_with_live_pods(cluster: Cluster, local: Kubectl) -> None:
    local.apply(a_pod("alive", *SLEEP, node="gpu-0"))
    running(local, "alive")
    tool("down", timeout=900)
    after = host_state()
    assert after == (cluster.before or after)
    for kind, lines in after.items():
        assert not [line for line in lines if "dreambooth" in line or "dbc" in line], kind
