"""Which tokens are known: those of the file first, then those that an upstream vouches for."""

import time
from collections.abc import Callable
from typing import Final

from ingest_gateway.authorize import Tokens
from ingest_gateway.meters import Meters
from ingest_gateway.refusals import Busy
from ingest_gateway.token_cache import Lasting, TokenCache, Verdict
from ingest_gateway.token_questions import Bounds, Questions
from ingest_gateway.token_upstream import Upstream as Asked
from schemas.tokens import Token, askable, raw_digest

_AWAY: Final = "tokens_upstream"


class KnownTokens:
    """The tokens of a file, and beyond them those of an upstream. Make it in a running event loop.

    No text is kept beyond the question that it is needed for: a found token is asked for again with the text of the
    request that uses it.

    Args:
        local: the file's; they always win, and nobody is asked for them.
        upstream: asked for the others.
        lasting: how long what it said is kept.
        bounds: of asking.
        meters: what is counted.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        local: Tokens,
        upstream: Asked,
        lasting: Lasting,
        bounds: Bounds,
        meters: Meters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._local = local
        self._clock = clock
        self._cache = TokenCache(lasting, meters, clock)
        self._questions = Questions(upstream, self._cache.learn, meters, bounds, clock)

    async def close(self) -> None:
        """End; nobody is asked afterwards."""
        await self._questions.close()

    def find(self, text: str) -> Token | None:
        """Find a presented token without waiting; None where it is unknown, or must be asked for."""
        token = self._local.find(text)
        return token if token is not None else self._vouched_for(text)

    async def ask(self, text: str) -> Token | None:
        """Find a presented token that `find` did not; None where it is unknown. Waits for a bounded time.

        Raises:
            Busy: it was never found, and the upstream does not answer.
        """
        if not askable(text):
            return None
        digest = raw_digest(text)
        if self._cache.is_unknown(digest):
            return None
        renewal = self._cache.find(digest) is not None
        answer = await self._questions.wait(self._questions.begin(digest, text, renewal=renewal))
        if isinstance(answer, Token):
            return answer
        if answer is Verdict.UNKNOWN:
            return None
        found = self._cache.find(digest)  # the upstream being away never stops a known token
        if found is None:
            raise Busy(_AWAY)
        return found.token

    def _vouched_for(self, text: str) -> Token | None:
        digest = raw_digest(text)
        found = self._cache.find(digest)
        if found is None:
            return None
        now = self._clock()
        if now >= found.fresh_until:
            if now >= found.settled_until:
                return None
            self._questions.begin(digest, text, renewal=True)
        return found.token
