"""A small Hugging Face hub: what huggingface_hub asks of it, for data sets and models.

The answers follow the public API: repository info and tree under /api, files under /resolve, errors
with X-Error-Code. Faults are injected where a test wants them.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.serving import QuietHandler, serving

_API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
    r"/(?P<what>revision|tree)/(?P<revision>.+)"
)
_FILE = re.compile(
    r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
# Whether it has answered the request instead of the hub.
Fault = Callable[[QuietHandler], bool]


@dataclass
class Repo:
    """A repository: one commit, known by itself and by a branch.

    Attributes:
        files: Contents by name.
        commit: 40 digits.
        access: `public`, `private` or `gated`; the last two want the token `TOKEN`.
        claimed_sizes: What the hub says about a file's size, where that is not the truth.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    branch: str = "main"
    access: str = "public"
    claimed_sizes: dict[str, int] = field(default_factory=dict)

    TOKEN = "hf_fortests"

    def entries(self) -> list[dict[str, Any]]:
        """The tree as the API lists it."""
        return [
            {
                "type": "file",
                "path": name,
                "size": self.claimed_sizes.get(name, len(content)),
                "oid": hashlib.sha1(content).hexdigest(),
            }
            for name, content in sorted(self.files.items())
        ]


class FakeHub:
    """Repositories, a log of what was asked, and faults.

    Attributes:
        address: Where it listens.
        models, datasets: By `owner/name`.
        requests: `METHOD path` of each request.
        sent: Bytes of file content given out.
        faults: Asked in turn before each answer.
    """

    def __init__(self) -> None:
        self.address = ""
        self.models: dict[str, Repo] = {}
        self.datasets: dict[str, Repo] = {}
        self.requests: list[str] = []
        self.sent = 0
        self.faults: list[Fault] = []

    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for."""
        found = [_FILE.fullmatch(line.removeprefix("GET ")) for line in self.requests]
        return [match["path"] for match in found if match]

    def answer(self, handler: QuietHandler) -> None:
        """Answers a GET or HEAD."""
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(f"{handler.command} {path}")
        if any(fault(handler) for fault in self.faults):
            return
        match = _API.fullmatch(path) or _FILE.fullmatch(path)
        if match is None:
            handler.reply(404)
            return
        is_dataset = match["kind"] in ("datasets", "datasets/")
        repo = (self.datasets if is_dataset else self.models).get(match["repo"])
        if refusal := self._refusal(handler, repo, match["revision"]):
            status, code = refusal
            handler.reply(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})
            return
        assert repo is not None
        if "path" in match.groupdict():
            self._give_file(handler, repo, match["path"])
        elif match["what"] == "tree":
            _give_json(handler, repo.entries())
        else:
            siblings = [{**entry, "rfilename": entry["path"]} for entry in repo.entries()]
            _give_json(handler, {"id": match["repo"], "sha": repo.commit, "siblings": siblings})

    def _refusal(
        self, handler: QuietHandler, repo: Repo | None, revision: str
    ) -> tuple[int, str] | None:
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", Repo.TOKEN):
            return 401, "InvalidToken"
        if repo is None or (repo.access == "private" and not token):
            return 401 if not token else 404, "RepoNotFound"
        if revision not in (repo.commit, repo.branch):
            return 404, "RevisionNotFound"
        # The hub tells everybody what a gated repository holds, and gives its files to few.
        if repo.access == "gated" and not token and "/api/" not in handler.path:
            return 401, "GatedRepo"
        return None

    def _give_file(self, handler: QuietHandler, repo: Repo, name: str) -> None:
        content = repo.files.get(name)
        if content is None:
            handler.reply(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": repo.commit,
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", "")):
            status, start = 206, int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if handler.command == "GET":
            self.sent += len(content) - start
        handler.reply(status, content[start:], headers)


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub without repositories, for the time of the body."""
    hub = FakeHub()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            hub.answer(self)

        do_HEAD = do_GET

    with serving(Handler) as hub.address:
        yield hub


def _give_json(handler: QuietHandler, value: object) -> None:
    handler.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})
