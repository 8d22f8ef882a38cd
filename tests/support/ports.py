"""Free loopback ports below the ephemeral range, so that no client's own port can take them in between."""

import random
import socket

_LOW, _HIGH = 20_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """Give a port that nobody listens on and that this process did not give before."""
    while True:
        port = random.randrange(_LOW, _HIGH)  # noqa: S311
        if port in _given:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
