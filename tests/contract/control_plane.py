"""A real API server and its etcd, of a test session's own: no nodes, no controllers."""

import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kopf
import requests
import yaml

from localcluster import binaries

# helm renders the chart whose rights are tested; KubeRay's definitions come with its operator.
PROGRAMS = ("etcd", "kube-apiserver", "kuberay-operator", "helm")
_START_SECONDS = 180


@dataclass(frozen=True)
class ControlPlane:
    """A running API server.

    Attributes:
        url: Where it answers.
        certificate: What it is verified by, PEM.
        token: Of a user who may do everything.
        processes: Ids of the processes: etcd and the API server.
    """

    url: str
    certificate: Path
    token: str
    processes: tuple[int, int]

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        token: str | None = None,
        **query: str,
    ) -> requests.Response:
        """Ask as the user who may do everything, or as the one with the token."""
        return requests.request(
            method,
            f"{self.url}{path}",
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {token or self.token}", "Content-Type": content},
            verify=str(self.certificate),
            timeout=60,
        )

    def kubeconfig(self, token: str) -> dict[str, Any]:
        """How to come in with a token, as kubectl's file has it."""
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "own", "cluster": cluster}],
            "users": [{"name": "own", "user": {"token": token}}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}],
            "current-context": "own",
        }

    def login(self, token: str) -> kopf.ConnectionInfo:
        """How to come in with a token."""
        return kopf.ConnectionInfo(server=self.url, ca_path=str(self.certificate), token=token)

    def token_of(self, namespace: str, account: str) -> str:
        """A token of a service account."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = self.request("POST", path, asked)
        answer.raise_for_status()
        token: str = answer.json()["status"]["token"]
        return token

    def apply(self, path: str, obj: Any, *, manager: str = "somebody", **query: str) -> Any:
        """Server-side apply as the user who may do everything.

        Raises:
            requests.HTTPError: If it is refused.
        """
        query |= {"fieldManager": manager, "force": "true"}
        answer = self.request("PATCH", path, obj, content="application/apply-patch+yaml", **query)
        if not answer.ok:
            raise requests.HTTPError(f"{path}: {answer.text}", response=answer)
        return answer.json()

    def make_namespace(self, name: str) -> None:
        """Make a namespace, or see that it is there."""
        path = f"/api/v1/namespaces/{name}"
        self.apply(path, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def define(self, file: Path) -> None:
        """Install a CustomResourceDefinition and wait until its kind is served."""
        definition = yaml.load(
            file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
        name = definition["metadata"]["name"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        self.apply(path, definition)
        group, plural = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        version = next(each["name"] for each in definition["spec"]["versions"] if each["storage"])
        deadline = time.monotonic() + _START_SECONDS
        while not self.request("GET", f"/apis/{group}/{version}/{plural}").ok:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} is not served: {self.request('GET', path).text}")
            time.sleep(0.05)


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """Build what is missing, start both programs, and end them.

    Args:
        folder: Empty; data, keys and logs go there.
    """
    binaries.ensure(PROGRAMS)
    etcd_port, peer_port, port = free_ports(3)
    etcd_url = f"http://127.0.0.1:{etcd_port}"
    etcd = _start(
        folder / "etcd.log",
        [
            *(str(binaries.path("etcd")), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}"),
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        ],
    )
    try:
        server = _start(folder / "kube-apiserver.log", _server_command(folder, port, etcd_url))
        try:
            plane = ControlPlane(
                f"https://127.0.0.1:{port}",
                folder / "certificates" / "apiserver.crt",
                _token(folder),
                (etcd.pid, server.pid),
            )
            _wait(plane, server, folder / "kube-apiserver.log")
            yield plane
        finally:
            # It would otherwise wait a minute for requests that go on.
            server.kill()
            server.wait()
    finally:
        etcd.kill()
        etcd.wait()


def _server_command(folder: Path, port: int, etcd_url: str) -> list[str]:
    key = folder / "service-account.key"
    subprocess.run(
        ["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, text=True
    )
    return [
        str(binaries.path("kube-apiserver")),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        # Makes a certificate there.
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.255.0.0/24",
        "--endpoint-reconciler-type=none",
    ]


def _token(folder: Path) -> str:
    """The token of the user who may do everything; the server reads its file once, at start."""
    text = (folder / "tokens.csv").read_text(encoding="utf-8")
    return text.split(",", 1)[0]


def _start(log: Path, command: list[str]) -> subprocess.Popen[bytes]:
    tokens = log.with_name("tokens.csv")
    if not tokens.exists():
        tokens.touch(mode=0o600)
        tokens.write_text(f'{secrets.token_hex(24)},admin,admin,"system:masters"\n')
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


def free_ports(number: int) -> list[int]:
    """Ports nobody listens at; together, so that they differ."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait(plane: ControlPlane, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server is ready; all of its own roles are there then."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            if plane.certificate.exists() and plane.request("GET", "/readyz").ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"the API server did not become ready:\n{tail}")
