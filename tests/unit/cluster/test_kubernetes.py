"""Applying what is there already is told from changing something."""

import json
from typing import Any

import pytest

from localcluster import kubernetes
from localcluster.errors import ClusterError


class Server:
    """An API server that holds one object and is spoken to through kubectl."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.item: dict[str, Any] = {}
        self.applied: dict[str, Any] = {}
        monkeypatch.setattr(kubernetes, "kubectl", self.kubectl)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Answer as kubectl would."""
        if argv[0] == "apply":
            self.item = self.applied
            return ""
        return json.dumps(self.item) if self.item else ""


def an_object(value: str, version: str = "1", **status: str) -> dict[str, Any]:
    """A ConfigMap as the server returns it."""
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "x", "resourceVersion": version, "labels": {"a": "b"}},
        "data": {"key": value},
        "status": status,
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, an_object("new"), True),
        (an_object("old"), an_object("new"), True),
        (an_object("same"), an_object("same"), False),
        (an_object("same", "1"), an_object("same", "2", phase="Running"), False),
    ],
    ids=["made", "changed", "same", "only its status moved"],
)
def test_an_apply_says_whether_it_changed_anything(
    server: Server, before: dict[str, Any], after: dict[str, Any], changed: bool
) -> None:
    server.item, server.applied = before, after
    assert kubernetes.apply("manifest") == changed


def test_what_does_not_exist_is_none(server: Server) -> None:
    assert kubernetes.get("node", "cpu-9") is None
    assert not kubernetes.condition(None, "Available")


def test_a_condition_holds_only_when_it_is_true() -> None:
    conditions = [{"type": "Available", "status": "False"}, {"type": "Ready", "status": "True"}]
    item = {"status": {"conditions": conditions}}
    assert kubernetes.condition(item, "Ready")
    assert not kubernetes.condition(item, "Available")
    assert not kubernetes.condition(item, "Progressing")


def test_a_server_that_does_not_answer_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*argv: str) -> str:
        raise ClusterError("connection refused")

    monkeypatch.setattr(kubernetes, "kubectl", refuse)
    assert not kubernetes.reachable()
