"""The one thing the driver asks of the Kubernetes API: to change its progress ConfigMap."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import requests

import dreambooth
from dreambooth.errors import InfrastructureError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONNECT_SECONDS, ANSWER_SECONDS = 3.05, 10.0
KEY = "progress.json"
# What is changed need not come back.
ONLY_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"


class ProgressConfigMap:
    """A ConfigMap that this pod's service account may patch."""

    def __init__(self, server: str, account: Path, namespace: str, name: str) -> None:
        """`account` is the folder with `token` and `ca.crt`, `server` the API server's address."""
        self._account = account
        self._url = (
            f"{server}/api/v1/namespaces/{quote(namespace, '')}/configmaps/{quote(name, '')}"
        )
        self._session = requests.Session()
        # Neither a proxy nor other certificates nor a .netrc have a say inside a cluster.
        self._session.trust_env = False
        self._session.headers["User-Agent"] = f"dreambooth/{dreambooth.__version__}"

    def patch(self, text: str, timeout: float = ANSWER_SECONDS) -> None:
        """Makes `text` its `progress.json`; other keys stay.

        Args:
            text: The record.
            timeout: Seconds to wait for the answer.

        Raises:
            InfrastructureError: If the API server does not answer or does not want to.
        """
        try:
            # Read anew: the kubelet replaces it long before it expires.
            token = (self._account / "token").read_text(encoding="ascii").strip()
            answer = self._session.patch(
                self._url,
                json={"data": {KEY: text}},
                headers={
                    "Accept": ONLY_METADATA,
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/merge-patch+json",
                },
                verify=str(self._account / "ca.crt"),
                timeout=(min(CONNECT_SECONDS, timeout), timeout),
                allow_redirects=False,
            )
        except (OSError, ValueError) as error:
            # What requests raises is an OSError; so is a missing token or certificate.
            raise _untold(f"{type(error).__name__}: {error}") from error
        if answer.status_code != 200:
            raise _untold(f"status {answer.status_code}: {_words(answer)}")


def in_cluster(environ: Mapping[str, str], namespace: str, name: str) -> ProgressConfigMap:
    """The ConfigMap as a pod reaches it.

    Raises:
        InfrastructureError: If this is no pod.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise InfrastructureError(
            "there is no API server to tell the progress to",
            field="KUBERNETES_SERVICE_HOST",
            remedy="Run this inside a pod, or leave DREAMBOOTH_PROGRESS_CONFIGMAP out.",
            reason="BadEnvironment",
        )
    address = f"[{host}]" if ":" in host else host
    return ProgressConfigMap(f"https://{address}:{port}", ACCOUNT, namespace, name)


def _words(answer: requests.Response) -> str:
    """The message of an API error, or the beginning of whatever came."""
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text
    return " ".join(str(message).split())[:300]


def _untold(why: str) -> InfrastructureError:
    return InfrastructureError(why, reason="ProgressNotTold")
