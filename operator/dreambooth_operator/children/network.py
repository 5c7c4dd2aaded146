"""Who may reach a job's pods: they each other, and whom the administrator lets in."""

from dreambooth_operator.children.metadata import child
from dreambooth_operator.config import Network
from dreambooth_operator.job import Job
from dreambooth_operator.kube.kinds import NETWORK_POLICY, Object

DASHBOARD_PORT, METRICS_PORT = 8265, 8080


def network_policy(job: Job, network: Network) -> Object:
    """Refuses all other connections to the pods; what they open themselves is not restricted."""
    pods = {"matchLabels": job.names.selector}
    ingress: list[Object] = [{"from": [{"podSelector": pods}]}]
    for peers, port in (
        (network.dashboard_peers, DASHBOARD_PORT),
        (network.metrics_peers, METRICS_PORT),
    ):
        if peers:
            ports = [{"protocol": "TCP", "port": port}]
            ingress.append({"from": list(peers), "ports": ports})
    spec = {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": ingress}
    return child(job, NETWORK_POLICY, job.names.base, spec=spec)
