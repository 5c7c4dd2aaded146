"""Kopf, as an informer only: handlers map what happened to a job's key, and queue it.

With no other handlers kopf writes nothing: no annotations, no finalizers, no state. What a handler
raises is lost, so they do nothing that can fail.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import kopf

from dreambooth_operator.kube.kinds import CONFIG_MAP, JOB, RAY_JOB, Kind
from dreambooth_operator.names import JOB_LABEL
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.watch_health import WatchHealth


class Backoffs(Iterable[float]):
    """Waits between attempts to reach the API, for ever: a storm must not end the operator."""

    def __iter__(self) -> Iterator[float]:
        wait = 1.0
        while True:
            yield wait * random.uniform(0.5, 1.0)
            wait = min(wait * 2, 30.0)


def registry(queue: WorkQueue, health: WatchHealth) -> kopf.OperatorRegistry:
    """The handlers.

    Args:
        queue: Gets the keys of jobs to look at.
        health: Hears of every version of a job.
    """
    handlers = kopf.OperatorRegistry()

    def on_job(type: str | None, meta: kopf.Meta, **_: Any) -> None:
        key = f"{meta.get('namespace')}/{meta.get('name')}"
        if type == "DELETED":
            health.lose(key)
        else:
            health.hear(key, str(meta.get("resourceVersion", "")))
        queue.add(key)

    def on_child(meta: kopf.Meta, **_: Any) -> None:
        if job := (meta.get("labels") or {}).get(JOB_LABEL):
            queue.add(f"{meta.get('namespace')}/{job}")

    kopf.on.event(*_place(JOB), id="job", registry=handlers)(_quick(on_job))
    for kind in (RAY_JOB, CONFIG_MAP):
        kopf.on.event(
            *_place(kind),
            id=kind.plural,
            labels={JOB_LABEL: kopf.PRESENT},
            registry=handlers,
        )(_quick(on_child))
    kopf.on.login(id="login", registry=handlers)(login)
    return handlers


def settings() -> kopf.OperatorSettings:
    """Kopf's settings: time-outs on everything, nothing that writes, no peers."""
    chosen = kopf.OperatorSettings()
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = 10
    chosen.watching.inactivity_timeout = 70
    for kind in (RAY_JOB, CONFIG_MAP):
        chosen.watching.label_selectors[_place(kind)] = JOB_LABEL
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.networking.error_backoffs = Backoffs()
    # Handlers only queue keys: there is nothing to wait for, neither between events nor at the end.
    chosen.queueing.idle_timeout = 0.1
    chosen.queueing.exit_timeout = 0.1
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    # What is watched is named here; looking for more needs permissions.
    chosen.scanning.disabled = True
    return chosen


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """The pod's service account, or else the person's kubeconfig; read anew each time."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _place(kind: Kind) -> tuple[str, str, str]:
    """Group, version and plural, as kopf wants them."""
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


def _quick(handler: Any) -> Any:
    """Kopf runs plain functions in threads; the queue belongs to the loop."""

    async def call(**arguments: Any) -> None:
        handler(**arguments)

    return call
