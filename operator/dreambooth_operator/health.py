"""Probes and metrics over HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dreambooth_operator.metrics import Metrics

# A watch that has missed changes for so long does not come back by itself.
LONGEST_LAG = 180.0


@asynccontextmanager
async def probes(port: int, metrics: Metrics, lag: Callable[[], float]) -> AsyncIterator[int]:
    """Serve /healthz, /readyz and /metrics during the body.

    Args:
        port: Where; 0 takes one that is free.
        metrics: What /metrics shows.
        lag: Seconds for which the watch has missed changes.

    Yields:
        The port.
    """

    async def healthz(_: web.Request) -> web.Response:
        seconds = lag()
        if seconds > LONGEST_LAG:
            text = f"changes of jobs have not been heard of for {seconds:.0f} s\n"
            return web.Response(status=503, text=text)
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def show(_: web.Request) -> web.Response:
        metrics.watch_lag.set(lag())
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        await site.start()
        # With any port taken, each family of addresses has its own: that of IPv4 first.
        yield int(min(runner.addresses, key=len)[1])
    finally:
        await runner.cleanup()
