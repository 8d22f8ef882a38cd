import errno
import socket
from contextlib import ExitStack

import pytest

from deploy import shared_port
from tests.support.ports import free_port

HOST = "127.0.0.1"


def listener(port: int, *, shares: bool) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shares:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((HOST, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def is_refused(port: int) -> bool:
    with pytest.raises(OSError, match="in use") as refused:
        listener(port, shares=False)
    return refused.value.errno == errno.EADDRINUSE


def test_a_held_port_is_shared_by_those_who_share_and_refused_to_others():
    with shared_port.held(HOST, free_port()) as port:
        assert is_refused(port)
        with listener(port, shares=True), listener(port, shares=True):
            assert is_refused(port)


def test_a_held_port_accepts_nothing_itself():
    with shared_port.held(HOST, free_port()) as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


def test_all_connections_reach_those_who_listen():
    with shared_port.held(HOST, 0) as port, ExitStack() as stack:
        servers = [stack.enter_context(listener(port, shares=True)) for _ in range(2)]
        for _ in range(60):
            stack.enter_context(socket.create_connection((HOST, port)))
        accepted = []
        for server in servers:
            server.setblocking(False)
            count = 0
            while True:
                try:
                    stack.enter_context(server.accept()[0])
                except BlockingIOError:
                    break
                count += 1
            accepted.append(count)
        assert sum(accepted) == 60
        assert min(accepted) > 0


def test_a_second_instance_is_refused_even_while_none_of_the_firsts_workers_is_up():
    with (
        shared_port.held(HOST, free_port()) as port,
        pytest.raises(OSError, match=rf"in use: {HOST} port {port}") as refused,
        shared_port.held(HOST, port),
    ):
        pass
    assert refused.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("shares", [True, False])
def test_a_port_on_which_somebody_listens_is_refused(shares):
    port = free_port()
    with (
        listener(port, shares=shares),
        pytest.raises(OSError, match="in use"),
        shared_port.held(HOST, port),
    ):
        pass


def test_connections_of_an_earlier_start_that_still_close_do_not_count():
    port = free_port()
    with listener(port, shares=False) as server:
        client = socket.create_connection((HOST, port))
        server.accept()[0].close()  # the server's side closes first: it keeps the port in TIME_WAIT
        client.close()
    with shared_port.held(HOST, port) as again:
        assert again == port


def test_the_system_chooses_a_port_for_0_and_it_is_free_again_afterwards():
    with shared_port.held(HOST, 0) as port:
        assert port > 0
    with listener(port, shares=False):
        pass


def test_every_address_of_a_name_gets_the_same_port(monkeypatch):
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with shared_port.held("both", 0) as port:
        for address in ("127.0.0.1", "127.0.0.2"):
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind((address, port))
