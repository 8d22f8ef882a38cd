"""The Unleash server behind the gateway: exchanges with it, byte for byte, over connections that are kept.

aiohttp's own session decodes header values as UTF-8, drops the bytes that are none, writes the target anew, and makes
an exchange cost three times as much. So an exchange takes a connection from aiohttp's pool (which knows TLS, names and
addresses), writes the head as it is, and leaves the parsing to aiohttp again.
"""

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Final, NamedTuple

import aiohttp
import structlog
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream, StreamReader
from yarl import URL

from ingest_gateway.forwarding import RawHeaders
from schemas.urls import HttpServer

_log = structlog.get_logger()

_IDLE_SECONDS: Final = 4.0
"""Less than the 5 s after which Node closes an idle connection: a post must not meet one that is just being closed."""
_DNS_SECONDS: Final = 10
_BUFFER_BYTES: Final = 16 * 1024
"""aiohttp stops reading at twice this: what a slow client leaves unread here is bounded."""
_LONGEST_HEADER: Final = 64 * 1024
_MOST_HEADERS: Final = 512
_PROBE_SECONDS: Final = 60
"""How long a silent connection lasts before TCP asks whether the other side is still there: streams may be silent."""
_QUIET_SECONDS: Final = 60.0
_INTERIM: Final = range(100, 200)
_CONTINUE: Final = 100
_NO_BODY: Final = frozenset({204, 304})


class Away(Exception):  # noqa: N818 - what is known of the server
    """The server cannot be reached, or did not speak HTTP; the message says which in a word, and repeats no text.

    Attributes:
        unanswered: it took the connection and closed it before any answer.
    """

    def __init__(self, why: str, *, unanswered: bool = False) -> None:
        super().__init__(why)
        self.unanswered = unanswered


class Late(Exception):  # noqa: N818 - what is known of the server
    """The server took longer than it may."""


class Answered(NamedTuple):
    """An answer, as far as its head.

    Attributes:
        status: of the answer; 100 where the server asks for the body, and the answer follows.
        reason: the words beside it.
        headers: names and values, byte for byte.
        has_body: whether a body belongs to it.
        length: of the body in bytes; None where it comes in chunks, or until the connection ends.
        stream: whether it is a stream of events, which stays open.
    """

    status: int
    reason: str
    headers: RawHeaders
    has_body: bool
    length: str | None
    stream: bool


class Exchange:
    """One request and its answer.

    The request's body, if there is one, goes to `write`, and ends with `write_eof`; `sent` says that there is none.
    `answer` and then `read` may run at the same time as that: a server may answer before it has the whole body.
    """

    def __init__(
        self,
        connection: Connection,
        protocol: ResponseHandler,
        writer: StreamWriter,
        *,
        method: str,
        silent_seconds: float,
    ) -> None:
        self._connection = connection
        self._protocol = protocol
        self._method = method
        self._silent_seconds = silent_seconds
        self._writer = writer
        self._content: StreamReader | None = None
        self._complete = False
        self._attendant: asyncio.Task[None] | None = None

    def attend(self, sending: Coroutine[None, None, None]) -> None:
        """Run what sends the body beside the exchange, and end it with it."""
        self._attendant = asyncio.create_task(sending)

    async def write(self, piece: bytes) -> None:
        """Write a piece of the request's body; waits while the server does not read.

        Raises:
            Away: it closed the connection.
        """
        try:
            await self._writer.write(piece)
        except ConnectionError as error:
            raise Away(type(error).__name__) from None

    async def write_eof(self) -> None:
        """End the request's body.

        Raises:
            Away: the server closed the connection.
        """
        try:
            await self._writer.write_eof()
        except ConnectionError as error:
            raise Away(type(error).__name__) from None
        self.sent()

    def sent(self) -> None:
        """Note that the request is complete: from now on the server may keep silent for so long only."""
        self._complete = True
        self._watch(self._silent_seconds)

    async def answer(self) -> Answered:
        """Wait for the answer's head; after status 100 wait again.

        Raises:
            Away: there is none, or it cannot be read.
            Late: it took too long.
        """
        status = _CONTINUE + 1
        while status in _INTERIM and status != _CONTINUE:
            try:
                message, content = await self._protocol.read()
            except TimeoutError:
                raise Late from None
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
                raise Away(type(error).__name__, unanswered=True) from None
            except (aiohttp.ClientError, HttpProcessingError, EofStream, OSError) as error:
                raise Away(type(error).__name__) from None
            status = message.code
            if message.upgrade or (message.chunked and message.headers["Transfer-Encoding"].lower() != "chunked"):
                raise Away("an answer that was not asked for")
        if status == _CONTINUE:
            return Answered(status, message.reason, (), has_body=False, length=None, stream=False)
        self._content = content
        self._watch(self._silent_seconds)
        stream = message.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/event-stream"
        return Answered(
            status,
            message.reason,
            message.raw_headers,
            has_body=status not in _NO_BODY and self._method != "HEAD",
            length=message.headers.get("Content-Length"),
            stream=stream and status == 200,  # noqa: PLR2004
        )

    def be_patient(self) -> None:
        """Let the server be silent for as long as it likes; TCP alone asks whether it is still there."""
        self._watch(None)
        transport = self._protocol.transport
        if transport is not None:
            _probe(transport.get_extra_info("socket"))

    def ready(self) -> bytes:
        """Give what of the body is here already, maybe nothing; never waits.

        Raises:
            Away: the connection ended before the body did.
        """
        try:
            return b"" if self._content is None else self._content.read_nowait()
        except (aiohttp.ClientError, OSError) as error:
            raise Away(type(error).__name__) from None

    async def read(self) -> bytes:
        """Give what came of the answer's body, at least a byte; nothing at its end.

        Raises:
            Away: the connection ended before the body did.
            Late: the server was silent for too long.
        """
        try:
            return b"" if self._content is None else await self._content.readany()
        except TimeoutError:
            raise Late from None
        except (aiohttp.ClientError, OSError) as error:
            raise Away(type(error).__name__) from None

    def fail(self, error: Exception) -> None:
        """Have whoever waits for the answer's head get this error; later it changes nothing."""
        self._protocol.set_exception(error)

    def end(self) -> None:
        """Have whoever reads the body find its end now, and close the connection."""
        if self._content is not None:
            self._content.feed_eof()
        self._connection.close()

    def cut(self) -> None:
        """Have whoever reads the body find that it ended too soon."""
        if self._content is not None:
            self._content.set_exception(Away("cut"))

    def _watch(self, seconds: float | None) -> None:
        if self._content is None or not self._content.is_eof():
            self._protocol.read_timeout = seconds
            self._protocol.start_timeout()

    def settle(self) -> None:
        """Keep the connection for another exchange where all was sent and read; close it otherwise."""
        if self._attendant is not None:
            self._attendant.cancel()
        if self._complete and self._content is not None and self._content.at_eof():
            self._connection.release()
        else:
            self._connection.close()


class UnleashServer:
    """Where the exchanges go. Make it in a running event loop.

    Certificates are verified against the system's authorities; redirects are not followed, nothing is inflated, no
    cookie is kept, and no proxy of the environment is used.

    Args:
        server: its address, and the prefix of its paths.
        connect_seconds: how long a connection may take, name and TLS included.
    """

    def __init__(self, server: HttpServer, *, connect_seconds: float) -> None:
        self.authority = server.authority.encode()
        self.prefix = server.prefix.encode()
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ttl_dns_cache=_DNS_SECONDS)
        self._destination = aiohttp.ClientRequest("GET", URL(server.origin), loop=self._loop)
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)

    async def begin(self, method: str, head: bytes, *, chunked: bool = False, silent_seconds: float) -> Exchange:
        """Write a request's head.

        Args:
            method: of the request: what it is decides whether the answer has a body.
            head: all of it, as it goes over the wire, maybe with a body.
            chunked: what is written to the exchange goes in chunks.
            silent_seconds: how long the server may take to begin its answer, and then between two pieces of it.

        Raises:
            Away: it cannot be reached.
            Late: the connection took too long.
        """
        connection, protocol = await self._connected()
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=None,  # not before all is sent
            read_bufsize=_BUFFER_BYTES,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
            max_headers=_MOST_HEADERS,
        )
        writer = StreamWriter(protocol, self._loop)
        try:
            await writer.write(head, drain=False)
        except ConnectionError as error:
            connection.close()
            raise Away(type(error).__name__, unanswered=True) from None
        if chunked:
            writer.enable_chunking()
        return Exchange(connection, protocol, writer, method=method, silent_seconds=silent_seconds)

    async def _connected(self) -> tuple[Connection, ResponseHandler]:
        try:
            while True:
                connection = await self._connector.connect(self._destination, [], self._timeout)
                protocol = connection.protocol
                if protocol is not None and len(protocol) == 0:
                    return connection, protocol
                connection.close()  # the server has said something unasked, which would pass for the next answer
        except TimeoutError:
            raise Late from None
        except (aiohttp.ClientError, OSError) as error:
            raise Away(type(error).__name__) from None

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._connector.close()


class Presence:
    """Says in the log that something fails and that it is well again, once each, and not more often than every minute.

    Args:
        fails: what is said at the first fault.
        well: what is said after that, at the first success.
    """

    def __init__(self, fails: str, well: str) -> None:
        self._fails = fails
        self._well = well
        self._said = False
        self._silent_until = 0.0

    def note(self, fault: str = "") -> None:
        """Take note of a success, or of a fault in a word."""
        if not fault:
            if self._said:
                self._said = False
                _log.info(self._well)
        elif not self._said and (now := time.monotonic()) >= self._silent_until:
            self._said = True
            self._silent_until = now + _QUIET_SECONDS
            _log.warning(self._fails, fault=fault)


def _probe(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
