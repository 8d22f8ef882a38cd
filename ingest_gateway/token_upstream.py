"""The server that is asked for tokens which nobody here knows: `POST {url}/edge/validate`, as Unleash Edge asks it."""

from collections.abc import Sequence
from typing import Final, Protocol

import aiohttp
import structlog
from aiohttp import hdrs
from yarl import URL

from schemas import edge_tokens
from schemas.tokens import Token
from schemas.urls import HttpServer

_log = structlog.get_logger()

_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_OK: Final = 200
_DNS_SECONDS: Final = 10
_IDLE_SECONDS: Final = 4.0
"""Less than the 5 s after which Node closes an idle connection."""
_USER_AGENT: Final = "flagmeter-gateway"


class NoAnswer(Exception):  # noqa: N818 - what is known of the tokens: nothing
    """The upstream is away or answers nonsense; the message says which in a few words, and repeats no text."""


class Upstream(Protocol):
    """Whatever can be asked for tokens."""

    async def ask(self, texts: Sequence[str]) -> dict[str, Token | None]:
        """Ask for tokens by their texts; takes as long as it takes.

        Returns:
            Each token that something is known of: None where it is unknown, or cannot be used here.

        Raises:
            NoAnswer: nothing is known of any.
        """
        ...

    async def close(self) -> None:
        """End."""
        ...


class HttpUpstream:
    """An `Upstream` over HTTP. Make it in a running event loop.

    Certificates are verified, redirects not followed, answers bounded and never inflated.

    Args:
        server: its root.
        connections: most at a time.
    """

    def __init__(self, server: HttpServer, *, connections: int) -> None:
        self._url = URL(server.origin + server.prefix + edge_tokens.PATH, encoded=True)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, ttl_dns_cache=_DNS_SECONDS, keepalive_timeout=_IDLE_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={
                hdrs.USER_AGENT: _USER_AGENT,
                hdrs.ACCEPT: "application/json",
                hdrs.ACCEPT_ENCODING: "identity",
                hdrs.CONTENT_TYPE: "application/json",
            },
        )

    async def ask(self, texts: Sequence[str]) -> dict[str, Token | None]:
        """Ask for tokens; see `Upstream.ask`."""
        content = await self._post(edge_tokens.encode_question(texts))
        try:
            answered = edge_tokens.decode_answer(content, frozenset(texts))
        except edge_tokens.UnreadableAnswerError:
            raise NoAnswer("its answer cannot be read") from None
        for text, why in answered.unusable.items():
            _log.warning("a token of the upstream cannot be used here", token_id=edge_tokens.shown_id(text), why=why)
        found: dict[str, Token | None] = dict(answered.known)
        if answered.complete:
            return {text: found.get(text) for text in texts}
        _log.warning("a part of the upstream's answer cannot be read")
        return found | dict.fromkeys(answered.unusable)

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def _post(self, question: bytes) -> bytes:
        try:
            try:
                return await self._exchange(question)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept connection may be closed just when it is used again; this question may be repeated.
                return await self._exchange(question)
        except aiohttp.ClientError as error:  # its text repeats the URL, or what was received
            raise NoAnswer(type(error).__name__) from None

    async def _exchange(self, question: bytes) -> bytes:
        async with self._session.post(self._url, data=question, allow_redirects=False) as response:
            if response.status != _OK:
                raise NoAnswer(f"status {response.status}")
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > _MAX_ANSWER_BYTES:
                    raise NoAnswer("its answer is too long")
            return bytes(received)
