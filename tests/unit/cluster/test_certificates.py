"""Certificates prove who somebody is to those who trust the cluster's authority."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from localcluster import certificates
from localcluster.errors import ClusterError


@pytest.fixture(autouse=True)
def pki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An authority of the test's own."""
    folder = tmp_path / "pki"
    monkeypatch.setattr(certificates, "PKI", folder)
    for name, file in {
        "CA": "ca.crt",
        "CA_KEY": "ca.key",
        "SERVICE_ACCOUNT_KEY": "service-account.key",
        "SERVICE_ACCOUNT_PUBLIC": "service-account.pub",
    }.items():
        monkeypatch.setattr(certificates, name, folder / file)
    certificates.ensure_authority()
    return folder


def openssl(*argv: str | Path) -> str:
    """Ask openssl, which checks more strictly than this project would."""
    done = subprocess.run(["openssl", *map(str, argv)], check=True, capture_output=True, text=True)
    return done.stdout


def test_a_server_is_trusted_under_its_names_only(pki: Path) -> None:
    server = certificates.ensure("server", "me", hosts=["DNS:server.test", "IP:10.0.0.1"])
    check = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", pki / "ca.crt")
    assert "OK" in openssl(*check, "-verify_hostname", "server.test", server.cert)
    assert "OK" in openssl(*check, "-verify_ip", "10.0.0.1", server.cert)
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*check, "-verify_hostname", "other.test", server.cert)


def test_a_client_carries_its_user_and_groups_and_can_not_be_a_server(pki: Path) -> None:
    client = certificates.ensure("node", "system:node:a", groups=["system:nodes"])
    subject = openssl("x509", "-noout", "-subject", "-in", client.cert)
    assert "O = system:nodes" in subject and "CN = system:node:a" in subject
    check = ("verify", "-CAfile", pki / "ca.crt", "-purpose")
    assert "OK" in openssl(*check, "sslclient", client.cert)
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*check, "sslserver", client.cert)


def test_a_certificate_is_issued_once_until_it_has_to_say_something_else() -> None:
    first = certificates.ensure("server", "me", hosts=["DNS:a.test"]).cert.read_text()
    again = certificates.ensure("server", "me", hosts=["DNS:a.test"]).cert.read_text()
    other = certificates.ensure("server", "me", hosts=["DNS:b.test"]).cert.read_text()
    assert first == again != other


def test_a_new_authority_issues_everything_anew(pki: Path) -> None:
    before = certificates.ensure("node", "a").cert.read_text()
    (pki / "ca.crt").unlink()
    certificates.ensure_authority()
    after = certificates.ensure("node", "a")
    assert after.cert.read_text() != before
    assert "OK" in openssl("verify", "-CAfile", pki / "ca.crt", after.cert)


def test_an_interrupted_issue_leaves_no_half_written_certificate(
    pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = certificates.Certificate("node")
    with monkeypatch.context() as broken:
        broken.setattr(certificates, "_DAYS", "no number")
        with pytest.raises(ClusterError):
            certificates.ensure("node", "a")
    assert not certificate.cert.exists() and not certificate.key.exists()
    certificates.ensure("node", "a")
    assert certificate.cert.exists()
    assert {entry.name for entry in pki.iterdir() if entry.is_dir()} == set()


def test_keys_and_kubeconfigs_are_their_owners_only(tmp_path: Path) -> None:
    admin = certificates.ensure("admin", "admin", groups=["system:masters"])
    kubeconfig = tmp_path / "deep" / "admin.kubeconfig"
    certificates.write_kubeconfig(kubeconfig, admin)
    secret = (admin.key, kubeconfig, certificates.CA_KEY, certificates.SERVICE_ACCOUNT_KEY)
    assert [oct(file.stat().st_mode & 0o777) for file in secret] == ["0o600"] * 4


def test_a_kubeconfig_verifies_the_server_and_is_not_written_without_need(tmp_path: Path) -> None:
    admin = certificates.ensure("admin", "admin")
    kubeconfig = tmp_path / "admin.kubeconfig"
    certificates.write_kubeconfig(kubeconfig, admin)
    cluster = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]
    assert cluster["server"].startswith("https://")
    trusted = base64.b64decode(cluster["certificate-authority-data"])
    assert trusted == certificates.CA.read_bytes()
    assert "insecure-skip-tls-verify" not in cluster

    before = kubeconfig.stat().st_mtime_ns, kubeconfig.stat().st_ino
    certificates.write_kubeconfig(kubeconfig, admin)
    assert (kubeconfig.stat().st_mtime_ns, kubeconfig.stat().st_ino) == before
