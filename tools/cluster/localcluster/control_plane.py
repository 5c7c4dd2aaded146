"""etcd, API server, controller manager and scheduler, on a machine of their own."""

from pathlib import Path

from localcluster import binaries, certificates, kubernetes
from localcluster.certificates import Certificate
from localcluster.layout import (
    ADMIN_KUBECONFIG,
    API_PORT,
    API_SERVICE_ADDRESS,
    CONTROL,
    DNS_DOMAIN,
    POD_NETWORK,
    SERVICE_NETWORK,
    STATE,
)
from localcluster.services import Service

_ETCD_URL = "https://127.0.0.1:2379"


def program(name: str) -> str:
    """Return the path of a built program."""
    return str(binaries.path(name))


def ensure() -> bool:
    """Start what does not run; tell whether anything was started."""
    certificates.ensure_authority()
    etcd = _etcd()
    changed = etcd.ensure()
    server = _api_server()
    admin = certificates.ensure("admin", "admin", groups=["system:masters"])
    certificates.write_kubeconfig(ADMIN_KUBECONFIG, admin)
    changed |= server.ensure()
    server.wait("the API server", kubernetes.reachable, 120)
    for service in (_controller_manager(), _scheduler()):
        changed |= service.ensure()
    return changed


def _etcd() -> Service:
    server = certificates.ensure("etcd", "etcd", hosts=["IP:127.0.0.1"])
    return Service(
        "etcd",
        CONTROL,
        (
            program("etcd"),
            f"--data-dir={CONTROL.state / 'etcd'}",
            f"--listen-client-urls={_ETCD_URL}",
            f"--advertise-client-urls={_ETCD_URL}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--client-cert-auth",
            f"--trusted-ca-file={certificates.CA}",
            f"--cert-file={server.cert}",
            f"--key-file={server.key}",
        ),
        (server.cert,),
    )


def _api_server() -> Service:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"kubernetes.default.svc.{DNS_DOMAIN}")
    addresses = [CONTROL.address, API_SERVICE_ADDRESS, "127.0.0.1"]
    hosts = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    server = certificates.ensure("apiserver", "kube-apiserver", hosts=hosts)
    to_etcd = certificates.ensure("apiserver-etcd", "kube-apiserver")
    to_kubelet = certificates.ensure("apiserver-kubelet", "kube-apiserver-kubelet-client")
    return Service(
        "kube-apiserver",
        CONTROL,
        (
            program("kube-apiserver"),
            f"--bind-address={CONTROL.address}",
            f"--advertise-address={CONTROL.address}",
            f"--secure-port={API_PORT}",
            f"--etcd-servers={_ETCD_URL}",
            f"--etcd-cafile={certificates.CA}",
            f"--etcd-certfile={to_etcd.cert}",
            f"--etcd-keyfile={to_etcd.key}",
            f"--client-ca-file={certificates.CA}",
            f"--tls-cert-file={server.cert}",
            f"--tls-private-key-file={server.key}",
            f"--kubelet-certificate-authority={certificates.CA}",
            f"--kubelet-client-certificate={to_kubelet.cert}",
            f"--kubelet-client-key={to_kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer=https://kubernetes.default.svc.{DNS_DOMAIN}",
            f"--service-account-key-file={certificates.SERVICE_ACCOUNT_PUBLIC}",
            f"--service-account-signing-key-file={certificates.SERVICE_ACCOUNT_KEY}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--anonymous-auth=false",
            "--allow-privileged=true",
            # Ends at once when told to: there is no second server to hand requests to.
            "--shutdown-delay-duration=0s",
        ),
        (server.cert, to_etcd.cert, to_kubelet.cert, certificates.SERVICE_ACCOUNT_PUBLIC),
    )


def _component(name: str, *flags: str) -> Service:
    certificate = certificates.ensure(name, f"system:{name}")
    serving = certificates.ensure(f"{name}-serving", name, hosts=[f"IP:{CONTROL.address}"])
    kubeconfig = kubeconfig_for(name, certificate)
    return Service(
        name,
        CONTROL,
        (
            program(name),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={CONTROL.address}",
            f"--tls-cert-file={serving.cert}",
            f"--tls-private-key-file={serving.key}",
            "--leader-elect=false",
            *flags,
        ),
        (kubeconfig, serving.cert),
    )


def kubeconfig_for(name: str, certificate: Certificate) -> Path:
    """Write a component's kubeconfig and return its path."""
    path = STATE / "kubeconfigs" / f"{name}.kubeconfig"
    certificates.write_kubeconfig(path, certificate)
    return path


def _controller_manager() -> Service:
    return _component(
        "kube-controller-manager",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={certificates.SERVICE_ACCOUNT_KEY}",
        f"--root-ca-file={certificates.CA}",
        f"--cluster-signing-cert-file={certificates.CA}",
        f"--cluster-signing-key-file={certificates.CA_KEY}",
        f"--cluster-cidr={POD_NETWORK}",
        "--allocate-node-cidrs=false",
        # A lost node shows within half a minute, yet a busy two-core host is not taken for one.
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=24s",
    )


def _scheduler() -> Service:
    return _component("kube-scheduler")
