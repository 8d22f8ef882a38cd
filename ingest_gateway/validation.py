"""`POST /edge/validate`: which of these tokens exist, from what the gateway itself knows and can ask for."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ingest_gateway.authorize import Tokens, Upstream
from schemas import edge_tokens, lenient
from schemas.tokens import Token

MAX_BODY_BYTES: Final = 102_400
"""The recorded server's limit for every body."""


class Validation:
    """Answers an Edge.

    Args:
        tokens: the known ones.
        upstream: asked for the others; None where there is nobody to ask.
    """

    def __init__(self, tokens: Tokens, upstream: Upstream | None) -> None:
        self._tokens = tokens
        self._upstream = upstream

    async def answer(self, body: bytes) -> bytes:
        """Answer a question with the known tokens in it, as JSON.

        Raises:
            RefusedPayload: it is not a question, or asks for too many.
            lenient.MalformedJsonError: not JSON.
            Busy: nobody can say whether one of them exists. To leave that one out would be to say no, and an Edge then
                turns its clients away.
        """
        texts = list(dict.fromkeys(lenient.tokens_asked(body).tokens))
        found = {text: self._tokens.find(text) for text in texts}
        if self._upstream is not None:
            found |= await _asked(self._upstream, [text for text, token in found.items() if token is None])
        return edge_tokens.encode_answer([(text, token) for text, token in found.items() if token is not None])


async def _asked(upstream: Upstream, texts: Sequence[str]) -> dict[str, Token | None]:
    answers = await asyncio.gather(*map(upstream.ask, texts), return_exceptions=True)
    found: dict[str, Token | None] = {}
    for text, answer in zip(texts, answers, strict=True):
        if isinstance(answer, BaseException):
            raise answer
        found[text] = answer
    return found
