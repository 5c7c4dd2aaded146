"""The API server in memory over HTTP: discovery, lists, watches, and what the operator writes.

It has a thread and a loop of its own, because kopf ends all tasks of its loop when it ends.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from aiohttp import web

from dreambooth_operator.kube.errors import KubeError
from dreambooth_operator.kube.kinds import Kind, Object, Ref, ref_of
from dreambooth_operator.kube.port import FIELD_MANAGER
from tests.simulation.server import ApiServer, Change

T = TypeVar("T")

VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


class HttpApi:
    """Serves `server`.

    Attributes:
        deaf: Watches of these kinds are open and tell nothing.
        writes: What was written, in order.
    """

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.deaf: set[Kind] = set()
        self.writes: list[str] = []
        self._watches: list[tuple[Kind, asyncio.Queue[tuple[Change, Object] | None]]] = []
        server.watchers.append(self._tell)

    async def do(self, what: Callable[[ApiServer], T]) -> T:
        """What a function of the server gives, called where the server is at home."""

        async def call() -> T:
            return what(self.server)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), self._loop))

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address during the body."""
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        serving = self._served()
        try:
            yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), self._loop).result()
        finally:
            leave = serving.__aexit__(None, None, None)
            asyncio.run_coroutine_threadsafe(leave, self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            for _, queue in self._watches:
                queue.put_nowait(None)
            await runner.cleanup()

    def _tell(self, change: Change, kind: Kind, obj: Object) -> None:
        for watched, queue in self._watches:
            if watched == kind and kind not in self.deaf:
                queue.put_nowait((change, json.loads(json.dumps(obj))))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._route(request, request.path.strip("/").split("/"))
        except KubeError as error:
            named = {} if "could not find" in error.message else {"details": {"name": "it"}}
            body = {"kind": "Status", "message": error.message, "code": error.status, **named}
            return web.json_response(body, status=error.status or 500)

    async def _route(self, request: web.Request, parts: list[str]) -> web.StreamResponse:
        if parts in (["api"], ["apis"]):
            return web.json_response(self._groups())
        depth = 2 if parts[0] == "api" else 3
        version, rest = "/".join(parts[1:depth]), parts[depth:]
        kinds = {kind.plural: kind for kind in self.server.served if kind.api_version == version}
        if not rest:
            return web.json_response(_discovery(version, kinds))
        namespace, rest = (rest[1], rest[2:]) if rest[0] == "namespaces" else (None, rest)
        if rest[0] not in kinds:
            return web.Response(status=404, text="404 page not found\n")
        kind = kinds[rest[0]]
        if len(rest) == 1 and request.method == "GET":
            if request.query.get("watch"):
                return await self._watch(request, kind)
            items = self.server.get_all(kind, namespace, {})
            metadata = {"resourceVersion": str(max([0, *map(_version, items)]))}
            return web.json_response({"kind": "List", "items": items, "metadata": metadata})
        body = json.loads(await request.text() or "null")
        if len(rest) == 1:
            return self._create(request, kind, body)
        ref = Ref(kind, str(namespace), rest[1])
        return web.json_response(self._object(request, ref, rest[2:], body))

    def _create(self, request: web.Request, kind: Kind, body: Object) -> web.Response:
        if "dryRun" in request.query:
            return web.json_response(body, status=201)
        self.writes.append(f"create {kind.name}")
        return web.json_response(self.server.apply(ref_of(body), body, FIELD_MANAGER), status=201)

    def _object(self, request: web.Request, ref: Ref, sub: list[str], body: Any) -> Any:
        if request.method == "GET":
            return self.server.get(ref)
        self.writes.append(f"{request.method} {'/'.join([ref.kind.name, *sub])}")
        if request.method == "DELETE":
            self.server.delete(ref, body["preconditions"]["uid"])
            return {}
        manager = request.query["fieldManager"]
        if sub == ["status"]:
            return self.server.apply_status(ref, body, manager)
        return self.server.apply(ref, body, manager)

    async def _watch(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[tuple[Change, Object] | None] = asyncio.Queue()
        since = int(request.query.get("resourceVersion") or 0)
        for obj in self.server.get_all(kind, None, {}):
            if _version(obj) > since:
                queue.put_nowait(("MODIFIED", obj))
        entry = (kind, queue)
        self._watches.append(entry)
        try:
            while told := await queue.get():
                change, obj = told
                line = json.dumps({"type": change, "object": obj}) + "\n"
                await response.write(line.encode())
        finally:
            self._watches.remove(entry)
        return response

    def _groups(self) -> Object:
        served = {kind.api_version for kind in self.server.served if "/" in kind.api_version}
        found = sorted({*served, "apiextensions.k8s.io/v1"})
        groups = []
        for each in found:
            group, version = each.split("/")
            entry = {"groupVersion": each, "version": version}
            groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
        return {"versions": ["v1"], "groups": groups}


def _discovery(version: str, kinds: dict[str, Kind]) -> Object:
    resources: list[Object] = [
        {
            "name": kind.plural,
            "singularName": kind.name.lower(),
            "namespaced": True,
            "kind": kind.name,
            "verbs": VERBS,
        }
        for kind in kinds.values()
    ]
    # Kopf wants to know these two, and does not read them.
    for name, home in (
        ("Namespace", "v1"),
        ("CustomResourceDefinition", "apiextensions.k8s.io/v1"),
    ):
        if version == home:
            plural = f"{name.lower()}s"
            resources.append(
                {
                    "name": plural,
                    "singularName": name.lower(),
                    "namespaced": False,
                    "kind": name,
                    "verbs": VERBS,
                }
            )
    return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])
