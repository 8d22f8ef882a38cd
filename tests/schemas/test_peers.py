from prometheus_client import CollectorRegistry

from schemas import metric_names
from schemas.peers import Alone, Report


async def test_a_process_alone_is_not_ready_before_it_was_introduced() -> None:
    assert (await Alone().report()).unready == ("starting",)


async def test_a_process_alone_tells_of_itself() -> None:
    registry = CollectorRegistry()
    metric_names.counter(metric_names.APPENDED, registry).inc(3)

    async def report() -> Report:
        return Report(unready=("away",), partitions=(1,))

    alone = Alone()
    alone.introduce(report, registry)
    assert await alone.report() == Report(unready=("away",), partitions=(1,))
    assert "flagmeter_gateway_appended_total 3.0" in (await alone.metrics()).decode()
    assert not alone.shares_port
