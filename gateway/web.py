"""Every path of the port but announces and scrapes: an aiohttp application, which is given open connections.

A connection that it has may still ask for announces and scrapes, as proxies reuse theirs: the fast lane's codec
answers those too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway import http_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

MOST = 512  # connections
IDLE = 60.0  # seconds without a request after which a connection is closed
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Shoal, a BitTorrent tracker</title>
<style>body{{font:1rem/1.6 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}}td{{padding-right:2rem}}</style>
<h1>Shoal</h1><p>A BitTorrent tracker. Announce to <code>/announce</code> over HTTP or UDP.</p>
<table>{rows}</table></html>
"""


class HandedOver(asyncio.Protocol):
    """Gives a connection to aiohttp together with the bytes that were read before."""

    def __init__(self, inner: asyncio.Protocol, data: bytes) -> None:
        self.inner = inner
        self.data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.set_protocol(self.inner)
        self.inner.connection_made(transport)
        self.inner.data_received(self.data)


class Web:
    """The application. `ask` is HttpServer.ask; `totals` gives what the status page shows; `healthy` whether all is
    well; `release` is told the address of each connection that ended."""

    def __init__(
        self,
        ask: Callable[[bytes, tuple[int, int], asyncio.Future[bytes]], None],
        totals: Callable[[], dict[str, int]],
        healthy: Callable[[], bool],
        release: Callable[[tuple[int, int]], None],
    ) -> None:
        self.ask = ask
        self.release = release
        self.totals = totals
        self.healthy = healthy
        self.runner: web.AppRunner | None = None
        self.heard: dict[web.RequestHandler, float] = {}  # by connection: when its last request came
        self.addresses: dict[web.RequestHandler, tuple[int, int]] = {}  # of their clients
        self.coming: set[web.RequestHandler] = set()  # those that have no transport yet
        self.tasks: set[asyncio.Task[None]] = set()
        self.requests = 0
        self.malformed = 0
        self.turned_away = 0
        self.errors = logging.Logger(f"{__name__}.errors")
        self.errors.parent = log
        self.errors.addFilter(self._is_ours)

    async def start(self) -> None:
        """Be ready for connections."""
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/", self._page)
        app.router.add_get("/health", self._health)
        app.router.add_get("/announce", self._answer)
        app.router.add_get("/scrape", self._answer)
        self.runner = web.AppRunner(
            app, access_log=None, handle_signals=False, keepalive_timeout=IDLE / 2, logger=self.errors
        )
        await self.runner.setup()

    async def stop(self) -> None:
        """End all connections."""
        for task in list(self.tasks):
            task.cancel()
        if self.runner is not None:
            await self.runner.cleanup()

    def take(self, fd: int, data: bytes, address: tuple[int, int]) -> None:
        """Take over an open connection of the client at `address` (two words), which has sent `data`."""
        sock = socket.socket(fileno=fd)
        if len(self.heard) >= MOST:
            self.forget_closed()
        if self.runner is None or self.runner.server is None or len(self.heard) >= MOST:
            self.turned_away += 1
            with contextlib.suppress(OSError):
                sock.send(http_texts.failure(http_texts.CROWD, 0))
            sock.close()
            self.release(address)
            return
        task = asyncio.get_running_loop().create_task(self._take(sock, data, address))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _take(self, sock: socket.socket, data: bytes, address: tuple[int, int]) -> None:
        assert self.runner is not None
        assert self.runner.server is not None
        handler = self.runner.server()
        self.heard[handler] = monotonic()
        self.addresses[handler] = address
        self.coming.add(handler)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: HandedOver(handler, data), sock)
        except OSError:  # gone meanwhile
            sock.close()
        finally:
            self.coming.discard(handler)

    def tick(self) -> None:
        """Close connections that ask nothing any longer; to be called every second."""
        now = monotonic()
        self.forget_closed()
        for handler, since in self.heard.items():
            if now - since > IDLE and handler.transport is not None:
                handler.transport.abort()  # to close would wait for a client that does not read

    def _is_ours(self, record: logging.LogRecord) -> bool:
        """Whether an error that aiohttp logs is the tracker's own; strangers' malformed requests are counted."""
        if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
            self.malformed += 1
            return False
        return True

    def forget_closed(self) -> None:
        """Connections that are closed leave room for others."""
        for handler in list(self.heard):
            if handler.transport is None and handler not in self.coming:
                del self.heard[handler]
                self.release(self.addresses.pop(handler))

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a request, and note that its connection is in use."""
        self.requests += 1
        if request.protocol in self.heard:
            self.heard[request.protocol] = monotonic()
        return await handler(request)

    async def _page(self, _: web.Request) -> web.Response:
        rows = "".join(f"<tr><td>{name}</td><td>{value:,}</td></tr>" for name, value in self.totals().items())
        return web.Response(text=PAGE.format(rows=rows), content_type="text/html")

    async def _health(self, _: web.Request) -> web.Response:
        ok = self.healthy()
        return web.json_response({"ok": ok}, status=200 if ok else 503)

    async def _answer(self, request: web.Request) -> web.Response:
        """An announce or a scrape, by the codec of the fast lane."""
        # The path is as the router understood it, which may be escaped: the codec looks at bytes.
        query = request.raw_path.partition("?")[2].partition("#")[0].encode("utf-8", "surrogateescape")
        head = b"GET " + request.path.encode() + b"?" + query + b" HTTP/1.1\r\n"
        for value in request.headers.getall("X-Forwarded-For", []):
            head += b"X-Forwarded-For: " + value.encode("utf-8", "surrogateescape") + b"\r\n"
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # Not request.remote: the system no longer knows that of a connection that was reset.
        self.ask(head + b"\r\n", self.addresses[request.protocol], future)
        answer = await future
        top, _, body = answer.partition(b"\r\n\r\n")
        return web.Response(status=int(top[9:12]), body=body, content_type="text/plain")
