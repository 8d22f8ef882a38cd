import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from deploy import peers, run_dir, shared_metrics
from deploy.peers import Team
from schemas import metric_names
from schemas.peers import Alone, Report


@pytest.fixture
def folder() -> Iterator[Path]:
    with run_dir.made() as made:
        yield made


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_SECONDS", 5.0)


@contextlib.asynccontextmanager
async def worker(folder: Path, number: int, report: Report | None = None, *, of: int = 3) -> AsyncIterator[Team]:
    team = Team(folder, number, of)
    registry = CollectorRegistry()
    metric_names.gauge(metric_names.IN_FLIGHT_BYTES, registry).set(number)

    async def reporter() -> Report:
        assert report is not None
        return report

    if report is not None:
        team.introduce(reporter, registry)
    async with team.listening():
        yield team


async def test_all_are_ready_when_each_is(folder):
    async with (
        worker(folder, 1, Report(partitions=(2,))) as one,
        worker(folder, 2, Report(partitions=(0, 1))),
        worker(folder, 3, Report()) as three,
    ):
        assert await one.report() == await three.report() == Report(partitions=(0, 1, 2))


async def test_each_reason_says_whose_it_is_whoever_is_asked(folder):
    async with (
        worker(folder, 1, Report()) as one,
        worker(folder, 2, Report(unready=("slow", "ill"), broken=("ill",))) as two,
        worker(folder, 3, Report(unready=("away",))),
    ):
        expected = Report(
            unready=("worker 2: slow", "worker 2: ill", "worker 3: away"), broken=("worker 2: ill",), partitions=()
        )
        assert await one.report() == await two.report() == expected


async def test_one_that_was_not_introduced_yet_is_not_ready(folder):
    async with worker(folder, 1, Report(), of=2) as one, worker(folder, 2, of=2) as two:
        assert (await one.report()).unready == ("worker 2: starting",)
        assert (await two.report()).unready == ("worker 2: starting",)


async def test_one_that_does_not_run_is_not_ready_and_not_broken_since_it_is_started_again(folder):
    async with worker(folder, 1, Report()) as one:
        async with worker(folder, 2, Report()):
            assert await one.report() == Report(unready=("worker 3: is not running",))
        left = await asyncio.start_unix_server(lambda *_: None, peers.socket_of(folder, 3))
        left.close()  # its socket's file stays, as that of a killed process does
        assert peers.socket_of(folder, 3).exists()
        assert await one.report() == Report(unready=("worker 2: is not running", "worker 3: is not running"))
        async with worker(folder, 2, Report()), worker(folder, 3, Report()):
            assert await one.report() == Report()


async def test_one_that_is_there_and_does_not_answer_in_time_is_broken(folder, monkeypatch):
    monkeypatch.setattr(peers, "_SECONDS", 0.05)
    never = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    server = await asyncio.start_unix_server(hang, peers.socket_of(folder, 2))
    async with server, worker(folder, 1, Report(), of=2) as one:
        told = await one.report()
        assert told == Report(unready=("worker 2: does not answer",), broken=("worker 2: does not answer",))
        assert not await peers.answers(str(peers.socket_of(folder, 2)))
        assert "flagmeter_gateway_in_flight_bytes 1.0" in (await one.metrics()).decode()
        never.set()


@pytest.mark.parametrize("answer", [b"", b"\xc1", b"\x93\x90"])
async def test_one_that_dies_in_the_middle_of_its_answer_does_not_answer(folder, answer):
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(tell, peers.socket_of(folder, 2))
    async with server, worker(folder, 1, Report(), of=2) as one:
        assert (await one.report()).unready == ("worker 2: does not answer",)


async def test_a_fault_of_one_is_not_an_answer(folder):
    async def faulty() -> Report:
        raise ValueError("a fault")

    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
    async with worker(folder, 1, Report(), of=2) as one, worker(folder, 2, of=2) as two:
        two.introduce(faulty, CollectorRegistry())
        assert (await one.report()).unready == ("worker 2: does not answer",)
    assert [str(error) for error in seen] == ["a fault"]


async def test_an_asker_that_waits_too_long_or_leaves_costs_one_nothing(folder, monkeypatch):
    monkeypatch.setattr(peers, "_SECONDS", 0.05)
    async with worker(folder, 1, Report(), of=1):
        reader, writer = await asyncio.open_unix_connection(peers.socket_of(folder, 1))
        assert await reader.read() == b""  # nothing was asked in time
        writer.close()
        monkeypatch.setattr(peers, "_SECONDS", 5.0)
        assert await peers.answers(str(peers.socket_of(folder, 1)))


async def test_the_page_sums_the_gauges_of_those_that_run(folder):
    async with worker(folder, 1, Report()) as one, worker(folder, 3, Report()):
        assert "flagmeter_gateway_in_flight_bytes 4.0" in (await one.metrics()).decode()


async def test_questions_at_the_same_time_share_one_round(folder):
    asked = 0
    gate = asyncio.Event()

    async def slow() -> Report:
        nonlocal asked
        asked += 1
        await gate.wait()
        return Report()

    async with worker(folder, 1, Report(), of=2) as one, worker(folder, 2, of=2) as two:
        two.introduce(slow, CollectorRegistry())
        questions = [asyncio.create_task(one.report()) for _ in range(50)]
        while not asked:
            await asyncio.sleep(0)
        questions[0].cancel()  # whoever began it may leave: the others get their answer
        gate.set()
        assert set(await asyncio.gather(*questions[1:])) == {Report()}
        assert asked == 1
        assert await one.report() == Report()
        assert asked == 2


async def test_nobody_else_may_reach_the_sockets(folder):
    async with worker(folder, 1, Report()):
        assert folder.stat().st_mode & 0o077 == 0


async def test_a_process_without_a_number_is_alone(monkeypatch):
    monkeypatch.delenv("FLAGMETER_WORKER", raising=False)
    assert not peers.is_worker()
    async with peers.joined(4) as everyone:
        assert isinstance(everyone, Alone)
        assert not everyone.shares_port


async def test_a_worker_takes_its_place_by_its_variables_and_leaves_it(folder, monkeypatch):
    kept = []
    monkeypatch.setattr(shared_metrics, "keep_in_files", lambda *given: kept.append(given))
    monkeypatch.setenv("FLAGMETER_WORKER", "2")
    monkeypatch.setenv("FLAGMETER_WORKERS_DIR", str(folder))
    async with AsyncExitStack() as stack:
        assert peers.is_worker()
        everyone = await stack.enter_async_context(peers.joined(2))
        assert everyone.shares_port
        one = await stack.enter_async_context(worker(folder, 1, Report(), of=2))
        assert (await one.report()).unready == ("worker 2: starting",)
    assert kept == [(folder, 2)]
    assert not peers.socket_of(folder, 2).exists()
