"""The client's requests, and what the API's answers become; against a small HTTP server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import kopf
import pytest
from aiohttp import web

from dreambooth_operator.kube import client as module
from dreambooth_operator.kube.client import KubeClient
from dreambooth_operator.kube.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KindNotServed,
    KubeError,
    NotFound,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from dreambooth_operator.kube.kinds import CONFIG_MAP, JOB, RAY_JOB, Ref
from dreambooth_operator.kube.port import Event
from tests.unit.operator.builders import a_job

REX = Ref(JOB, "team", "rex")
PATH = "/apis/dreambooth.dev/v1alpha1/namespaces/team/dreamboothjobs"


@dataclass
class Server:
    """Answers in the order given, and remembers what it was asked."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    tokens: list[str] = field(default_factory=lambda: ["first", "second"])

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        status, content = self.answers.pop(0) if self.answers else (200, {})
        headers = {"Retry-After": "7"} if status == 429 else {}
        if isinstance(content, str):
            return web.Response(status=status, text=content, headers=headers)
        return web.json_response(content, status=status, headers=headers)

    def run(self, course: Callable[[KubeClient], Awaitable[Any]]) -> Any:
        """Carry out a course against this server."""

        async def serve() -> Any:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self.answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                async with KubeClient(lambda: self._login(url)) as client:
                    return await course(client)
            finally:
                await runner.cleanup()

        return asyncio.run(serve())

    def _login(self, url: str) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=url, token=self.tokens.pop(0))


def test_reading_goes_to_the_object_with_the_token() -> None:
    server = Server([(200, {"kind": "DreamBoothJob"})])
    assert server.run(lambda client: client.get(REX)) == {"kind": "DreamBoothJob"}
    (request,) = server.asked
    assert (request.method, request.path) == ("GET", f"{PATH}/rex")
    assert request.headers["Authorization"] == "Bearer first"
    # Without a resourceVersion a read is never served from a cache.
    assert dict(request.query) == {}


def test_applying_is_forced_and_has_the_field_manager() -> None:
    server = Server()
    obj = a_job().build()
    server.run(lambda client: client.apply(obj))
    server.run(lambda client: client.apply_status(obj))
    for request, path in zip(server.asked, (f"{PATH}/rex", f"{PATH}/rex/status"), strict=True):
        assert (request.method, request.path) == ("PATCH", path)
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        assert dict(request.query) == {"fieldManager": "dreambooth-operator", "force": "true"}
    assert server.bodies == [obj, obj]


def test_checking_makes_nothing_and_is_strict() -> None:
    server = Server()
    server.run(lambda client: client.check(a_job().build()))
    (request,) = server.asked
    assert (request.method, request.path) == ("POST", PATH)
    assert request.query["dryRun"] == "All"
    assert request.query["fieldValidation"] == "Strict"


def test_deleting_is_of_this_very_object() -> None:
    server = Server()
    server.run(lambda client: client.delete(REX, "uid-1"))
    assert server.asked[0].method == "DELETE"
    assert server.bodies[0]["preconditions"] == {"uid": "uid-1"}
    assert server.bodies[0]["propagationPolicy"] == "Background"


def test_long_lists_are_read_in_pages() -> None:
    first = {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    second = {"metadata": {}, "items": [{"metadata": {"name": "b"}}]}
    server = Server([(200, first), (200, second)])
    found = server.run(lambda client: client.list(RAY_JOB, "team", {"a": "b", "c": "d"}))
    assert [obj["metadata"]["name"] for obj in found] == ["a", "b"]
    assert found[0]["kind"] == "RayJob"
    assert server.asked[0].query["labelSelector"] == "a=b,c=d"
    assert server.asked[1].query["continue"] == "more"


def test_versions_are_read_without_the_objects() -> None:
    item = {"metadata": {"namespace": "team", "name": "rex", "resourceVersion": "7"}}
    server = Server([(200, {"items": [item]})])
    assert server.run(lambda client: client.versions(JOB, None)) == {"team/rex": "7"}
    assert server.asked[0].path == "/apis/dreambooth.dev/v1alpha1/dreamboothjobs"
    assert "PartialObjectMetadataList" in server.asked[0].headers["Accept"]


def test_core_kinds_are_under_api() -> None:
    server = Server()
    server.run(lambda client: client.get(Ref(CONFIG_MAP, "team", "x")))
    assert server.asked[0].path == "/api/v1/namespaces/team/configmaps/x"


def test_the_same_event_is_told_once_and_another_is_another() -> None:
    server = Server([(201, {}), (409, {"message": "exists"}), (201, {})])
    job = a_job().build()
    event = Event("Normal", "Succeeded", "Done.")

    async def course(client: KubeClient) -> None:
        await client.event(job, event)
        await client.event(job, event)
        await client.event(job, Event("Normal", "Succeeded", "Really."))

    server.run(course)
    names = [body["metadata"]["name"] for body in server.bodies]
    assert names[0] == names[1] != names[2]
    assert server.bodies[0]["involvedObject"]["uid"] == job["metadata"]["uid"]


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"message": "strict decoding error"}, Invalid),
        (401, {}, Unauthorized),
        (403, {"message": "exceeded quota"}, Forbidden),
        (404, {"message": "not found", "details": {"name": "rex"}}, NotFound),
        (404, "404 page not found\n", KindNotServed),
        (409, {}, Conflict),
        (410, {}, Gone),
        (422, {}, Invalid),
        (429, {}, TooManyRequests),
        (500, "<html>oops</html>", Unavailable),
        (503, {}, Unavailable),
        (504, {}, Timeout),
    ],
)
def test_an_answer_that_is_no_success_is_a_typed_error(
    status: int, answer: Any, error: type[KubeError]
) -> None:
    server = Server([(status, answer)])
    with pytest.raises(error) as caught:
        server.run(lambda client: client.get(REX))
    assert type(caught.value) is error
    assert caught.value.status == status
    if isinstance(answer, dict) and "message" in answer:
        assert answer["message"] in caught.value.message
    assert caught.value.retry_after == (7 if status == 429 else None)


def test_a_refused_token_is_read_anew() -> None:
    server = Server([(401, {}), (200, {})])

    async def course(client: KubeClient) -> None:
        with pytest.raises(Unauthorized):
            await client.get(REX)
        await client.get(REX)

    server.run(course)
    tokens = [request.headers["Authorization"] for request in server.asked]
    assert tokens == ["Bearer first", "Bearer second"]


def test_an_api_that_does_not_answer_ends_in_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.05)
    server = Server()

    async def never(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    monkeypatch.setattr(server, "answer", never)
    with pytest.raises(Timeout, match="no answer in"):
        server.run(lambda client: client.get(REX))


def test_an_api_that_is_not_there_is_unavailable() -> None:
    async def course() -> None:
        login = kopf.ConnectionInfo(server="http://127.0.0.1:9")
        async with KubeClient(lambda: login) as client:
            await client.get(REX)

    with pytest.raises(Unavailable, match="GET /apis"):
        asyncio.run(course())


def test_without_credentials_it_is_said_what_to_do() -> None:
    async def course() -> None:
        async with KubeClient(lambda: None):
            raise AssertionError("there is no cluster")

    with pytest.raises(KubeError, match="set KUBECONFIG"):
        asyncio.run(course())
