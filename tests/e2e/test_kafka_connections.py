"""Many connections cost no throughput: aiokafka's own queues collapse under a thousand of them, ours do not."""

import asyncio
from pathlib import Path

import pytest

from tests.ingest_gateway.process import gateway_process
from tests.support.hammer import hammer
from tests.support.kafka import Cluster

PARTITIONS = 6
FEW, MANY = 128, 1024
ROUNDS = 3
SECONDS = 5.0


@pytest.mark.slow
def test_1024_connections_post_as_much_as_128(kafka: Cluster, tmp_path: Path) -> None:
    topic = asyncio.run(kafka.make_topic(partitions=PARTITIONS))
    rates: dict[int, list[float]] = {FEW: [], MANY: []}
    with gateway_process(tmp_path, broker_url=kafka.url(topic)) as gateway:
        gateway.await_ready()
        for _ in range(ROUNDS):
            for connections, found in rates.items():
                rate, statuses = hammer(gateway.port, connections, SECONDS)
                assert statuses == {"202"}
                found.append(rate)
    print(
        "\n" + "; ".join(f"{many} connections: {', '.join(f'{rate:.0f}/s' for rate in rates[many])}" for many in rates)
    )
    assert max(rates[MANY]) >= 0.8 * max(rates[FEW])
