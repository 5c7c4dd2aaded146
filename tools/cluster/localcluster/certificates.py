"""The cluster's own certificate authority, and certificates and kubeconfigs from it."""

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.commands import run
from localcluster.layout import API_PORT, CONTROL, PKI

_DAYS = "3650"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
CA = PKI / "ca.crt"
CA_KEY = PKI / "ca.key"
SERVICE_ACCOUNT_KEY = PKI / "service-account.key"
SERVICE_ACCOUNT_PUBLIC = PKI / "service-account.pub"


@dataclass(frozen=True)
class Certificate:
    """A certificate's and its key's files."""

    name: str

    @property
    def cert(self) -> Path:
        """The certificate, PEM."""
        return PKI / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        """The private key, PEM, readable by its owner only."""
        return PKI / f"{self.name}.key"


def ensure_authority() -> None:
    """Make the authority's and the service accounts' keys."""
    PKI.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not CA.exists():
        extensions = {
            "basicConstraints": "critical,CA:TRUE",
            "keyUsage": "critical,keyCertSign,cRLSign",
            "subjectKeyIdentifier": "hash",
        }
        _request("/CN=dreambooth-cluster", extensions, CA, CA_KEY, ())
    if not SERVICE_ACCOUNT_PUBLIC.exists():
        run(
            ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
            + ["-out", str(SERVICE_ACCOUNT_KEY)]
        )
        public = run(["openssl", "ec", "-in", str(SERVICE_ACCOUNT_KEY), "-pubout"])
        _put(SERVICE_ACCOUNT_PUBLIC, public)


def ensure(
    name: str, user: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()
) -> Certificate:
    """Issue a certificate: for a server if it has hosts, and always usable by a client.

    Args:
        name: the files' name.
        user: the common name, which Kubernetes takes as the user's name.
        groups: the organisations, which Kubernetes takes as the user's groups.
        hosts: names and addresses (`DNS:…`, `IP:…`) that the server answers to.
    """
    certificate = Certificate(name)
    asked = json.dumps([user, [*groups], [*hosts], hashlib.sha256(CA.read_bytes()).hexdigest()])
    request = PKI / f"{name}.json"
    if request.exists() and request.read_text(encoding="utf-8") == asked:
        return certificate
    extensions = {
        "basicConstraints": "critical,CA:FALSE",
        "keyUsage": "critical,digitalSignature",
        "extendedKeyUsage": "clientAuth,serverAuth" if hosts else "clientAuth",
        "authorityKeyIdentifier": "keyid",
    }
    if hosts:
        extensions["subjectAltName"] = ",".join(hosts)
    subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
    signer = ("-CA", str(CA), "-CAkey", str(CA_KEY))
    _request(subject, extensions, certificate.cert, certificate.key, signer)
    _put(request, asked)
    return certificate


def _request(
    subject: str, extensions: dict[str, str], cert: Path, key: Path, signer: Sequence[str]
) -> None:
    settings = ["[req]", "distinguished_name=name", "[name]", "[ext]"]
    settings += [f"{name}={value}" for name, value in extensions.items()]
    with tempfile.TemporaryDirectory(dir=PKI) as folder:
        config, new_key, new_cert = (Path(folder, name) for name in ("cnf", "key", "crt"))
        config.write_text("\n".join(settings) + "\n", encoding="utf-8")
        run(
            ["openssl", "req", "-x509", "-new", *_KEY, "-days", _DAYS, "-subj", subject]
            + ["-config", str(config), "-extensions", "ext", *signer]
            + ["-keyout", str(new_key), "-out", str(new_cert)]
        )
        new_key.chmod(0o600)
        # The certificate last: once it is there, its key is.
        new_key.replace(key)
        new_cert.replace(cert)


def _put(path: Path, text: str) -> None:
    """Write a file that is whole or absent."""
    unfinished = path.with_name(f".{path.name}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)


def write_kubeconfig(path: Path, certificate: Certificate) -> None:
    """Write a kubeconfig that verifies the API server and carries the user's certificate."""

    def encoded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    name = "dreambooth-cluster"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": f"https://{CONTROL.address}:{API_PORT}",
                    "certificate-authority-data": encoded(CA),
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": encoded(certificate.cert),
                    "client-key-data": encoded(certificate.key),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    text = json.dumps(config, indent=1) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _put(path, text)
