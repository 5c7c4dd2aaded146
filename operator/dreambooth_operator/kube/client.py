"""The port over HTTP: plain requests, each with a time-out, errors as types.

It stands on what kopf has anyway, aiohttp and its reading of credentials. The official client would
more than double the operator's memory (docs/decisions/0003-no-client-library.md).
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType

import aiohttp
import kopf

from dreambooth_operator.clock import to_text
from dreambooth_operator.kube.errors import (
    Conflict,
    Invalid,
    KindNotServed,
    KubeError,
    NotFound,
    Timeout,
    Unauthorized,
    Unavailable,
    error_for,
)
from dreambooth_operator.kube.kinds import EVENT, Kind, Object, Ref, ref_of
from dreambooth_operator.kube.port import FIELD_MANAGER, Event

REQUEST_SECONDS = 30.0
# Tokens of service accounts are replaced long before they expire; reading a file costs nothing.
FRESH_SECONDS = 60.0
PAGE = 500
CONNECTIONS = 32
_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"
_UNTYPED = "failed to create typed patch object"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

Objects = list[Object]
Login = Callable[[], kopf.ConnectionInfo | None]
"""Where the cluster is and how to get in; None if nothing is known of one."""


class KubeClient:
    """`KubeApi` on a cluster: an asynchronous context manager, which closes its connections.

    Args:
        login: Asked at the beginning, and again for fresh credentials.

    Raises:
        KubeError: If there are no credentials.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._connection = self._logged_in()
        self._read_at = asyncio.get_running_loop().time()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._connection.as_ssl_context(), limit=CONNECTIONS
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=10),
            headers={"User-Agent": FIELD_MANAGER},
            trust_env=self._connection.trust_env,
        )

    async def __aenter__(self) -> "KubeClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, ref: Ref) -> Object:
        """See `KubeApi`."""
        return await self._request("GET", ref.path)

    async def list(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str]
    ) -> list[Object]:
        """See `KubeApi`."""
        return [
            {"apiVersion": kind.api_version, "kind": kind.name, **item}
            for item in await self._pages(kind, namespace, labels, accept=_JSON)
        ]

    async def _pages(
        self, kind: Kind, namespace: str | None, labels: Mapping[str, str], *, accept: str
    ) -> Objects:
        within = f"/namespaces/{namespace}" if namespace else ""
        path = f"{kind.path}{within}/{kind.plural}"
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
        found: Objects = []
        while True:
            page = await self._request("GET", path, query=query, accept=accept)
            found += page.get("items") or []
            token = page.get("metadata", {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def versions(self, kind: Kind, namespace: str | None) -> dict[str, str]:
        """The resourceVersion of every object, by `namespace/name`; reads metadata alone."""
        items = await self._pages(kind, namespace, {}, accept=_METADATA)
        metadata = [item["metadata"] for item in items]
        return {f"{m['namespace']}/{m['name']}": m["resourceVersion"] for m in metadata}

    async def apply(self, obj: Object) -> Object:
        """See `KubeApi`."""
        return await self._apply(ref_of(obj).path, obj)

    async def apply_status(self, obj: Object) -> Object:
        """See `KubeApi`."""
        return await self._apply(f"{ref_of(obj).path}/status", obj)

    async def check(self, obj: Object) -> None:
        """See `KubeApi`."""
        path = ref_of(obj).path.rpartition("/")[0]
        query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": FIELD_MANAGER}
        await self._request("POST", path, query=query, body=obj)

    async def create(self, obj: Object) -> Object:
        """Make an object.

        Raises:
            Conflict: If there is one already.
        """
        path = ref_of(obj).path.rpartition("/")[0]
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", path, query=query, body=obj)

    async def replace(self, obj: Object) -> Object:
        """Write a whole object upon the very version that its metadata names.

        Raises:
            Conflict: If it has changed since.
        """
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PUT", ref_of(obj).path, query=query, body=obj)

    async def delete(self, ref: Ref, uid: str) -> None:
        """See `KubeApi`."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        await self._request("DELETE", ref.path, body=body)

    async def event(self, regarding: Object, event: Event) -> None:
        """See `KubeApi`; the same event of the same object's same state is told once."""
        obj = event_object(regarding, event, datetime.now(UTC))
        path = ref_of(obj).path.rpartition("/")[0]
        try:
            await self._request("POST", path, body=obj)
        except Conflict:
            return

    async def _apply(self, path: str, obj: Object) -> Object:
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", path, query=query, body=obj, content=_APPLY)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        """One request; its answer's JSON.

        Raises:
            KubeError: If the answer is no success, or there is none in time.
        """
        headers = {"Accept": accept, "Content-Type": content, **self._credentials()}
        data = None if body is None else json.dumps(body)
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.request(
                method,
                url,
                params=query,
                data=data,
                headers=headers,
                proxy=self._connection.proxy_url,
            ) as response:
                text = await response.text()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except TimeoutError as error:
            raise Timeout(f"{method} {path}: no answer in {REQUEST_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__} {error}") from error
        if 200 <= status < 300:
            return _parsed(text)
        problem = _error(f"{method} {path}", status, text, retry_after)
        if isinstance(problem, Unauthorized):
            self._read_at = -FRESH_SECONDS
        raise problem

    def _credentials(self) -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= FRESH_SECONDS:
            self._connection, self._read_at = self._logged_in(), now
        return self._connection.as_http_headers()

    def _logged_in(self) -> kopf.ConnectionInfo:
        try:
            connection = self._login()
        except (kopf.LoginError, OSError, KeyError) as error:
            raise KubeError(f"the credentials for the cluster cannot be read: {error}") from error
        if connection is None:
            raise KubeError(
                "no cluster is known. Run in a pod with a service account, or set KUBECONFIG."
            )
        return connection


def event_object(regarding: Object, event: Event, now: datetime) -> Object:
    """The Event as core/v1 has it, named after what it says, so that it is told once."""
    metadata = regarding["metadata"]
    version = metadata.get("resourceVersion", "")
    said = json.dumps([metadata["uid"], version, event.type, event.reason, event.message])
    name = f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    moment = to_text(now)
    return EVENT.new(
        metadata["namespace"],
        name,
        involvedObject={
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": version,
        },
        type=event.type,
        reason=str(event.reason),
        message=event.message[:1024],
        source={"component": FIELD_MANAGER},
        reportingComponent=FIELD_MANAGER,
        reportingInstance=FIELD_MANAGER,
        firstTimestamp=moment,
        lastTimestamp=moment,
        count=1,
    )


def _error(what: str, status: int, text: str, retry_after: str | None) -> KubeError:
    answer = _parsed(text)
    message = f"{what}: {answer.get('message') or text[:300] or status}"
    if status == 404 and not answer.get("details", {}).get("name"):
        # Of an object that is missing the API says which; a path it does not serve has no name.
        return KindNotServed(message, status=status)
    if status == 404:
        return NotFound(message, status=status)
    if status == 500 and _UNTYPED in message:
        # So the API calls a field that it does not know, or one of a wrong type, in an apply.
        return Invalid(message, status=status)
    wait = float(retry_after) if retry_after and retry_after.isdigit() else None
    return error_for(status, message, retry_after=wait)


def _parsed(text: str) -> Object:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def identity() -> str:
    """A name for this process that no other has."""
    return f"{FIELD_MANAGER}-{uuid.uuid4()}"
