"""The HTTP front: aiohttp handlers around the store."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NoReturn

import structlog
from aiohttp import BodyPartReader, ClientConnectionResetError, hdrs, web

from deploy.store import browsers, compression, protocol, users
from deploy.store.config import StoreConfig
from deploy.store.engine import Result
from deploy.store.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, SOCKET_TIMEOUT, UNKNOWN_EXCEPTION, Fault
from deploy.store.guard import Read
from deploy.store.protocol import Call
from deploy.store.store import Body, Store, check_body, check_buffered, check_held, joined

LONGEST_URL: Final = 1 << 20
"""Bytes of a request's first line, as a server's `http_max_uri_size`."""
_FORM_FIELD: Final = 1 << 20
_COMPRESSED_HERE: Final = 1 << 16
"""Pieces up to this size are compressed on the event loop, larger ones in a thread."""

_log = structlog.get_logger()


class Front:
    """The handlers, and what they share."""

    def __init__(self, config: StoreConfig, store: Store, secret: str) -> None:
        self._config = config
        self._store = store
        self._secret = secret
        self._bytes_held = 0

    def application(self) -> web.Application:
        """Build the routes."""
        app = web.Application(middlewares=[self._guarded])
        app.router.add_get("/ping", self._ok)
        app.router.add_get("/replicas_status", self._ok)
        app.router.add_get("/", self._query)
        app.router.add_post("/", self._query)
        return app

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n", content_type="text/html")

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse web pages before anything else, and answer errors in ClickHouse's shape."""
        request["query_id"] = str(uuid.uuid4())
        try:
            browsers.check(request.headers)
            return await handler(request)
        except Fault as fault:
            return self._error(request, fault)
        except web.HTTPException:
            raise
        except Exception:  # noqa: BLE001 - answered in the shape that clients know, and logged
            _log.exception("a request failed", query_id=request["query_id"])
            return self._error(request, Fault(UNKNOWN_EXCEPTION, "The embedded store failed; its log says why"))

    async def _query(self, request: web.Request) -> web.StreamResponse:
        parameters = dict(reversed(list(request.query.items())))  # of several of one name, the first counts
        role = users.authenticate(request.headers, parameters, self._secret)
        if request.method != hdrs.METH_POST and not parameters.get("query"):
            return await self._ok(request)
        held = 0
        try:
            body = Body()
            if request.method == hdrs.METH_POST:
                if request.content_type == "multipart/form-data":
                    parameters |= await self._form(request)
                else:
                    body = await self._body(request)
                    held = body.size
            call = protocol.read(role, request.method, parameters, request.headers)
            request["query_id"] = call.query_id
            return await self._answer(request, call, body)
        finally:
            self._bytes_held -= held

    async def _answer(self, request: web.Request, call: Call, body: Body) -> web.StreamResponse:
        started = time.monotonic()
        plan = await self._store.plan(call, body)
        if not isinstance(plan.statement, Read):
            result = await self._store.write(call, plan)
            return await self._whole(request, call, result, call.default_format, started)

        def is_gone() -> bool:
            return request.transport is None or request.transport.is_closing()

        output = plan.statement.format or call.default_format
        async with self._store.reading(call, plan.statement, is_gone) as (begun, pieces):
            if call.wait:
                size = sum(len(piece.data) for piece in begun)
                async for piece in pieces:
                    begun.append(piece)
                    size += len(piece.data)
                    check_buffered(size, self._config.store_max_buffered_result)
            if call.wait or len(begun) < 2:  # noqa: PLR2004 - one piece, or none, is all there is
                return await self._whole(request, call, joined(begun or [Result()]), output, started)
            return await self._streamed(request, call, _chained(begun, pieces), output)

    async def _whole(
        self, request: web.Request, call: Call, result: Result, output: str, started: float
    ) -> web.Response:
        headers = self._headers(call, output)
        headers["X-ClickHouse-Summary"] = protocol.summary(result, time.monotonic() - started)
        data = result.data
        coding = self._coding(request, call)
        if coding is not None and data:
            packer = compression.compressor(coding)
            data = await _compressed(packer, data) + packer.flush()
            headers[hdrs.CONTENT_ENCODING] = coding
        return web.Response(body=data, headers=headers)

    async def _streamed(
        self, request: web.Request, call: Call, pieces: AsyncIterator[Result], output: str
    ) -> web.StreamResponse:
        headers = self._headers(call, output)
        mark = secrets.token_hex(8)
        headers["X-ClickHouse-Exception-Tag"] = mark
        coding = self._coding(request, call)
        packer = compression.compressor(coding) if coding is not None else None
        if coding is not None:
            headers[hdrs.CONTENT_ENCODING] = coding
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        broken = False
        try:
            try:
                async for piece in pieces:
                    await self._send(response, piece.data, packer)
            except Fault as fault:
                # The status is gone already: the marked block, then a connection that ends within the body.
                broken = True
                await self._send(response, protocol.late_error(fault.text(self._store.version), mark), packer)
            end = packer.flush() if packer is not None else b""
            async with asyncio.timeout(self._config.store_send_timeout):
                if end:
                    await response.write(end)
                if not broken:
                    await response.write_eof()
        except (ClientConnectionResetError, ConnectionError, TimeoutError):
            broken = True
            _log.info("a client did not take its result", query_id=call.query_id)
        if broken and request.transport is not None:
            request.transport.close()
        return response

    async def _send(self, response: web.StreamResponse, data: bytes, packer: compression.Compressor | None) -> None:
        if packer is not None:
            data = await _compressed(packer, data)
        if data:
            async with asyncio.timeout(self._config.store_send_timeout):
                await response.write(data)

    async def _body(self, request: web.Request) -> Body:
        """Read a body as it comes, bounded in bytes and in the silence between them."""
        limit = self._config.store_max_body
        check_body(request.content_length or 0, limit)
        pieces: list[bytes] = []
        size = 0
        try:
            while True:
                async with asyncio.timeout(self._config.store_body_timeout):
                    piece = await request.content.readany()
                if not piece:
                    return Body(tuple(pieces), request.headers.get(hdrs.CONTENT_ENCODING, ""))
                pieces.append(piece)
                size += len(piece)
                self._bytes_held += len(piece)
                check_body(size, limit)
                check_held(self._bytes_held, 2 * limit)
        except TimeoutError:
            self._bytes_held -= size
            raise Fault(SOCKET_TIMEOUT, "Timeout exceeded while reading the request's body") from None
        except BaseException:
            self._bytes_held -= size
            raise

    async def _form(self, request: web.Request) -> dict[str, str]:
        """Read the fields of a form: clients put long parameters there. Files would be external tables."""
        fields: dict[str, str] = {}
        try:
            async with asyncio.timeout(self._config.store_body_timeout):
                async for part in await request.multipart():
                    if not isinstance(part, BodyPartReader) or part.name is None or part.filename is not None:
                        _refuse_files()
                    value = b""
                    while chunk := await part.read_chunk():
                        value += chunk
                        check_body(len(value), _FORM_FIELD)
                    fields.setdefault(part.name, value.decode("utf-8", "replace"))
        except TimeoutError:
            raise Fault(SOCKET_TIMEOUT, "Timeout exceeded while reading the request's body") from None
        except ValueError as error:  # aiohttp's word for a form that is none
            raise Fault(BAD_ARGUMENTS, f"The form cannot be read: {error}") from None
        return fields

    def _headers(self, call: Call, output: str) -> dict[str, str]:
        return {
            **protocol.base_headers(call.query_id, self._store.timezone),
            "X-ClickHouse-Format": output,
            hdrs.CONTENT_TYPE: protocol.content_type(output),
        }

    @staticmethod
    def _coding(request: web.Request, call: Call) -> str | None:
        return compression.choose(request.headers.get(hdrs.ACCEPT_ENCODING, "")) if call.compress else None

    def _error(self, request: web.Request, fault: Fault) -> web.Response:
        headers = protocol.base_headers(request["query_id"], self._store.timezone)
        headers["X-ClickHouse-Exception-Code"] = str(fault.code)
        headers[hdrs.CONTENT_TYPE] = "text/plain; charset=UTF-8"
        return web.Response(status=fault.status, body=fault.text(self._store.version).encode(), headers=headers)


async def _compressed(packer: compression.Compressor, data: bytes) -> bytes:
    if len(data) <= _COMPRESSED_HERE:
        return packer.compress(data)
    return await asyncio.to_thread(packer.compress, data)


def _refuse_files() -> NoReturn:
    raise Fault(NOT_IMPLEMENTED, "The embedded store does not take external tables")


async def _chained(begun: list[Result], rest: AsyncIterator[Result]) -> AsyncIterator[Result]:
    for piece in begun:
        yield piece
    async for piece in rest:
        yield piece


async def serve(config: StoreConfig, stop: asyncio.Event) -> None:
    """Run the store until `stop`: listen on loopback, then let running queries end, then close the engine.

    Raises:
        LockedError: another store has the directory.
        OSError: the port is taken, or the directory cannot be written.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True)
    secret = users.read_or_make_secret(config.secret_file)
    store = Store(config)
    started = time.monotonic()
    # The engine must be opened in the main thread: it stays the thread of its signals and its clean end.
    store.open()
    try:
        runner = web.AppRunner(
            Front(config, store, secret).application(),
            access_log=None,
            auto_decompress=False,
            handle_signals=False,
            shutdown_timeout=config.store_shutdown_timeout,
            keepalive_timeout=75,
            max_line_size=LONGEST_URL,
            max_field_size=1 << 16,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", config.clickhouse_port, backlog=512).start()
            _log.info(
                "the store listens",
                url=f"http://127.0.0.1:{config.clickhouse_port}/flagmeter",
                engine=store.version,
                seconds=round(time.monotonic() - started, 3),
            )
            await stop.wait()
            _log.info("the store ends")
        finally:
            await runner.cleanup()
    finally:
        store.close()
