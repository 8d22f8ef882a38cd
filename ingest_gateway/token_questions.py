"""Questions to the tokens' upstream: one a token at a time, many tokens in a post, few posts at once, none in vain.

All state belongs to the event loop: there are no locks. A token's text is kept until its question ends, no longer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from ingest_gateway.circuit import Circuit
from ingest_gateway.meters import Meters
from ingest_gateway.token_cache import Answer, Verdict
from ingest_gateway.token_upstream import NoAnswer, Upstream
from schemas import edge_tokens
from schemas.tokens import Token

_log = structlog.get_logger()
_LATE: Final = "no answer in time"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is asked at once, and how long it may take (seconds)."""

    wait: float
    """How long anybody waits for an answer. A post that takes longer counts as failed."""
    overtime: float = 5.0
    """How long a post may go on after that: a late answer serves whoever comes again."""
    posts: int = 4
    """Most posts at a time."""
    spacing: float = 0.05
    """Least time between the beginnings of two posts: what comes in between goes together."""
    batch: int = edge_tokens.MAX_ASKED
    waiting: int = 1_000
    """Most questions for tokens that were never found."""


class Question:
    """One token that is being asked for."""

    __slots__ = ("answer", "began", "digest", "renewal", "text")

    def __init__(
        self, digest: bytes, text: str, began: float, answer: asyncio.Future[Answer], *, renewal: bool
    ) -> None:
        self.digest = digest
        self.text = text
        self.began = began
        self.answer = answer
        self.renewal = renewal

    def settle(self, answer: Answer) -> None:
        """Tell everybody who waits; the first answer counts."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Questions:
    """Asks the upstream. Make it in a running event loop.

    Args:
        upstream: to ask.
        learn: told every answer, by the token's digest, also those that come too late for whoever waited.
        meters: what is counted.
        bounds: of it all.
        clock: of the circuit, in seconds; how long anybody waits goes by the event loop's.
    """

    def __init__(
        self,
        upstream: Upstream,
        learn: Callable[[bytes, Answer], None],
        meters: Meters,
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self._upstream = upstream
        self._learn = learn
        self._meters = meters
        self._bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._circuit = Circuit(clock, self._on_change)
        self._open: dict[bytes, Question] = {}
        self._renewals: deque[Question] = deque()
        self._new: deque[Question] = deque()
        self._never_found = 0
        self._posts: set[asyncio.Task[None]] = set()
        self._planned: asyncio.TimerHandle | None = None
        self._next_post = 0.0

    @property
    def open(self) -> int:
        """Questions without an answer so far."""
        return len(self._open)

    def begin(self, digest: bytes, text: str, *, renewal: bool) -> Question:
        """Ask for a token, or join the question for it that is under way.

        Args:
            digest: of the text.
            text: the token.
            renewal: it was found before; such questions go first, and a flood of others cannot keep them out.

        Returns:
            The question. It is settled as unanswered at once where the upstream is away, or too much is asked already.
        """
        known = self._open.get(digest)
        if known is not None:
            return known
        question = Question(digest, text, self._loop.time(), self._loop.create_future(), renewal=renewal)
        full = not renewal and self._never_found >= self._bounds.waiting
        if full or not self._circuit.allows():
            self._count("full" if full else "away")
            question.settle(Verdict.UNANSWERED)
            self._learn(digest, Verdict.UNANSWERED)
            return question
        self._open[digest] = question
        self._never_found += not renewal
        (self._renewals if renewal else self._new).append(question)
        self._plan()
        return question

    async def wait(self, question: Question) -> Answer:
        """Wait for an answer, within the bound."""
        try:
            async with asyncio.timeout(self._bounds.wait):
                return await asyncio.shield(question.answer)
        except TimeoutError:
            return Verdict.UNANSWERED

    async def close(self) -> None:
        """Leave every open question unanswered, and end."""
        if self._planned is not None:
            self._planned.cancel()
        self._renewals.clear()
        self._new.clear()
        posts = list(self._posts)
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        for question in list(self._open.values()):
            self._end(question, Verdict.UNANSWERED)
        await self._upstream.close()

    def _plan(self) -> None:
        """Post as soon as that is allowed; never at once, so that what comes together goes together."""
        waiting = self._renewals or self._new
        if waiting and self._planned is None and len(self._posts) < self._bounds.posts:
            self._planned = self._loop.call_at(max(self._loop.time(), self._next_post), self._post)

    def _post(self) -> None:
        self._planned = None
        batch = self._take()
        if batch:
            self._next_post = self._loop.time() + self._bounds.spacing
            post = self._loop.create_task(self._carry_out(batch), name="tokens' upstream")
            self._posts.add(post)
            post.add_done_callback(self._on_end)
        self._plan()

    def _on_end(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)
        self._plan()

    def _take(self) -> list[Question]:
        """Take what goes into the next post; whom nobody waits for any more is not asked for."""
        late = self._loop.time() - self._bounds.wait
        batch: list[Question] = []
        for queue in (self._renewals, self._new):
            while queue and len(batch) < self._bounds.batch:
                question = queue.popleft()
                if question.began < late:
                    self._end(question, Verdict.UNANSWERED)
                else:
                    batch.append(question)
        return batch

    async def _carry_out(self, batch: Sequence[Question]) -> None:
        began = self._loop.time()
        timer = self._loop.call_later(self._bounds.wait, self._on_late, batch)
        answers: dict[str, Token | None] = {}
        try:
            answers = await self._upstream_answers([question.text for question in batch])
            self._circuit.succeeded()
        except NoAnswer as error:
            if not batch[0].answer.done():  # else it has failed already, by being late
                self._failed(str(error))
        finally:
            timer.cancel()
            self._meters.token_seconds.observe(self._loop.time() - began)
            for question in batch:
                token = answers.get(question.text, Verdict.UNANSWERED)
                self._end(question, Verdict.UNKNOWN if token is None else token)

    async def _upstream_answers(self, texts: Sequence[str]) -> dict[str, Token | None]:
        try:
            async with asyncio.timeout(self._bounds.wait + self._bounds.overtime):
                return await self._upstream.ask(texts)
        except TimeoutError:
            raise NoAnswer(_LATE) from None
        except NoAnswer:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave anybody waiting
            _log.error("asking for tokens failed", fault=type(error).__name__)  # its text may hold tokens
            raise NoAnswer(type(error).__name__) from None

    def _on_late(self, batch: Sequence[Question]) -> None:
        self._failed(_LATE)
        for question in batch:  # whoever asks again before the post ends is told so at once
            question.settle(Verdict.UNANSWERED)

    def _failed(self, why: str) -> None:
        self._circuit.failed(why)
        if self._circuit.is_open:
            for queue in (self._renewals, self._new):
                while queue:
                    self._end(queue.popleft(), Verdict.UNANSWERED)

    def _end(self, question: Question, answer: Answer) -> None:
        del self._open[question.digest]
        self._never_found -= not question.renewal
        self._count("found" if isinstance(answer, Token) else answer.value)
        self._learn(question.digest, answer)
        question.settle(answer)

    def _count(self, outcome: str) -> None:
        self._meters.token_questions.labels(outcome).inc()

    def _on_change(self, away: bool, why: str) -> None:
        self._meters.token_upstream_away.set(away)
        if away:
            _log.warning("the tokens' upstream is away; known tokens stay accepted", why=why)
        else:
            _log.info("the tokens' upstream answers again")
