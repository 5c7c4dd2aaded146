"""An API server that has nothing but one ConfigMap, over real TLS."""

import json
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PATH = "/api/v1/namespaces/team/configmaps/rex-progress"


class ClusterApi:
    """Answers patches as told, and remembers the good ones."""

    def __init__(self, folder: Path) -> None:
        self.account = folder / "account"
        self.account.mkdir()
        key, certificate = make_certificate(self.account / "ca.crt", folder / "server.key")
        self.tokens = {"first"}
        self.write_token("first")
        # Answers to the next requests instead of the usual one.
        self.refusals: list[int] = []
        self.headers: list[dict[str, str]] = []
        self._records: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def records(self) -> list[dict[str, Any]]:
        with self._news:
            return list(self._records)

    def write_token(self, token: str) -> None:
        (self.account / "token").write_text(f"{token}\n")

    def wait_for(
        self, fits: Callable[[dict[str, Any]], bool], seconds: float = 60.0
    ) -> dict[str, Any]:
        """The first record that fits, waiting for it."""
        with self._news:
            self._news.wait_for(lambda: any(map(fits, self._records)), seconds)
            return next(record for record in self._records if fits(record))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        with self._news:
            self.headers.append(headers)
            if self.refusals:
                return self.refusals.pop(0), {"message": "scripted"}
            if headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
                return 401, {"message": "Unauthorized"}
            if path != PATH:
                return 404, {"message": f"{path} not found"}
            if headers.get("content-type") != "application/merge-patch+json":
                return 415, {"message": "unsupported"}
            self._records.append(json.loads(json.loads(body)["data"]["progress.json"]))
            self._news.notify_all()
            return 200, {"kind": "PartialObjectMetadata"}


def _handler(api: ClusterApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout: ClassVar[float] = 30.0

        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = api.answer(self.path, headers, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def make_certificate(certificate_file: Path, key_file: Path) -> tuple[Path, Path]:
    """Writes a certificate for this machine that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key_file, certificate_file
