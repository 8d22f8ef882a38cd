"""A seeded fleet that posts in a thread while a test breaks things, and what must be in the store afterwards."""

import asyncio
import threading
from collections.abc import Iterable, Sequence

from deploy.fleet import Fleet, Ledger
from deploy.send import Sent, send
from tests.support.waiting import wait_for

Key = tuple[str, str, str, str]
Totals = dict[Key, tuple[int, int, int]]

TOTALS = (
    "SELECT feature, variant, formatDateTime(hour, '%Y-%m-%dT%H:%i:%S.000Z'), app_name, toString(sum(yes)), "
    "toString(sum(no)), toString(sum(count)) FROM evaluations_hourly WHERE project = 'default' GROUP BY 1, 2, 3, 4"
)
"""The stored sums by flag, variant, hour and app, as the ledger keeps them."""


class Shipment:
    """A fleet that posts in a thread."""

    def __init__(
        self, fleet: Fleet, urls: Sequence[str], token: str, payloads: int, *, rate: float = 0, concurrency: int = 16
    ) -> None:
        self.fleet = fleet
        self.sent = Sent()
        self.payloads = payloads
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(list(urls), token, rate, concurrency))
        self._thread.start()

    def _run(self, urls: list[str], token: str, rate: float, concurrency: int) -> None:
        asyncio.run(
            send(
                self.fleet,
                self.sent,
                urls=urls,
                token=token,
                payloads=self.payloads,
                rate=rate,
                concurrency=concurrency,
                enough=self._enough.is_set,
            )
        )

    def wait_until(self, share: float) -> None:
        wait_for(lambda: self.sent.done >= share * self.payloads, seconds=300, what=f"{share:.0%} of the payloads")

    def finish(self) -> Sent:
        """Post no more than what is under way."""
        self._enough.set()
        self.join()
        self.payloads = self.sent.done
        return self.sent

    def join(self, *, seconds: float = 300) -> Sent:
        self._thread.join(timeout=seconds)
        assert not self._thread.is_alive()
        return self.sent

    def expected(self, in_the_log: Iterable[bytes]) -> Totals:
        """Give what must be stored: what the log holds, which is everything acknowledged, each payload once."""
        sent = self.join()
        assert sent.done == self.payloads
        number_of = {self.fleet.payload(at).body: at for at in range(self.payloads)}
        numbers = [number_of[body] for body in in_the_log]
        assert len(set(numbers)) == len(numbers), "a payload is in the log twice"
        expected = Ledger.of(self.fleet.payload(at) for at in numbers)
        if not sent.doubtful:
            assert totals(expected) == totals(sent.ledger)
        missing = set(range(self.payloads)) - set(numbers)
        assert len(missing - set(sent.doubtful)) == sent.failed, "something acknowledged is not in the log"
        return totals(expected)


def totals(ledger: Ledger) -> Totals:
    """Give a ledger's rows by key."""
    return {(row[0], row[1], row[2], row[3]): (row[4], row[5], row[6]) for row in ledger.rows()}


def stored(rows: Iterable[Sequence[str]]) -> Totals:
    """Give the rows of the query `TOTALS` by key."""
    return {(row[0], row[1], row[2], row[3]): (int(row[4]), int(row[5]), int(row[6])) for row in rows}
