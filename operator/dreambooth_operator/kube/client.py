"""The port on the official client: plain requests, each with a time-out, errors as types."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
from kubernetes.aio import config as kubeconfig
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from dreambooth_operator.clock import to_text
from dreambooth_operator.kube.errors import (
    Conflict,
    KindNotServed,
    KubeError,
    NotFound,
    Timeout,
    Unavailable,
    error_for,
)
from dreambooth_operator.kube.kinds import EVENT, Kind, Object, Ref, ref_of
from dreambooth_operator.kube.port import FIELD_MANAGER, Event

REQUEST_SECONDS = 30.0
PAGE = 500
_APPLY = "application/apply-patch+yaml"
_JSON = "application/json"
Objects = list[Object]

_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class KubeClient:
    """`KubeApi` on a cluster. Close it when done.

    Args:
        client: The official client, with address and credentials.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> "KubeClient":
        """A client with the pod's service account, or else the person's kubeconfig.

        Raises:
            KubeError: If there is neither.
        """
        configuration = Configuration()
        configuration.retries = False
        try:
            kubeconfig.load_incluster_config(client_configuration=configuration)
        except kubeconfig.ConfigException:
            try:
                await kubeconfig.load_kube_config(client_configuration=configuration)
            except (kubeconfig.ConfigException, OSError) as error:
                raise KubeError(f"no credentials for a cluster: {error}") from error
        return cls(ApiClient(configuration))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

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
        headers = {"Accept": accept, "Content-Type": content}
        try:
            response = await self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=REQUEST_SECONDS,
            )
            async with response:
                text = await response.text()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except TimeoutError as error:
            raise Timeout(f"{method} {path}: no answer in {REQUEST_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{method} {path}: {type(error).__name__} {error}") from error
        if not 200 <= status < 300:
            raise _error(f"{method} {path}", status, text, retry_after)
        return _parsed(text)


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
