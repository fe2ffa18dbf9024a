"""The admin address: /metrics and /health, by aiohttp, for the operator alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from common.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 1.0  # seconds for connections to end


class Admin:
    """Serves `metrics`, and `health`: a mapping whose "ok" says whether all is well."""

    def __init__(self, metrics: Metrics, health: Callable[[], dict[str, object]]) -> None:
        self.metrics = metrics
        self.health = health
        self.runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Begin to serve. Raises OSError if the address cannot be had."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        self.runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self.runner.setup()
        await web.TCPSite(self.runner, host, port).start()

    async def stop(self) -> None:
        """End all connections."""
        runner, self.runner = self.runner, None
        if runner is not None:
            await asyncio.wait_for(runner.cleanup(), PATIENCE)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, _: web.Request) -> web.Response:
        state = self.health()
        return web.json_response(state, status=200 if state["ok"] else 503)
