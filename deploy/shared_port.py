"""One port for several processes: each listens on it by SO_REUSEPORT, and the kernel spreads new connections."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held(host: str, port: int) -> Iterator[int]:
    """Keep a port for processes of this user that share it, for as long as the block runs; accepts nothing itself.

    SO_REUSEPORT alone would let a second instance join in silence. So the port is bound alone first, which fails where
    anybody listens or holds it, and is opened for sharing only then. It stays kept while no worker is up.

    Args:
        host: a name or an address; every address of it is bound.
        port: 0 lets the system choose one.

    Yields:
        The port.

    Raises:
        OSError: it is in use, or cannot be had.
    """
    found = dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    with contextlib.ExitStack() as stack:
        for family, kind, protocol, _, address in found:
            holder = stack.enter_context(socket.socket(family, kind, protocol))
            # As servers set it: connections of an earlier start that are still closing do not count.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(port != 0))
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                holder.bind((address[0], port, *address[2:]))
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}: {address[0]} port {port}") from None
            port = holder.getsockname()[1]
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield port
