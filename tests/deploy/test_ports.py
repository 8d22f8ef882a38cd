import socket

from deploy.ports import Wanted, faults
from tests.support.ports import free_port


def test_free_ports_have_no_fault():
    assert faults([Wanted("gateway", "127.0.0.1", free_port(), "--gateway-port")]) == []


def test_each_port_in_use_is_named_with_its_option():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        first, second = one.getsockname()[1], two.getsockname()[1]
        found = faults(
            [
                Wanted("gateway", "127.0.0.1", first, "--gateway-port"),
                Wanted("store", "127.0.0.1", second, "--clickhouse-port"),
            ]
        )
    assert found == [
        f"port {first} (gateway) is in use on 127.0.0.1: stop what uses it, or choose another with --gateway-port",
        f"port {second} (store) is in use on 127.0.0.1: stop what uses it, or choose another with --clickhouse-port",
    ]


def test_a_port_that_is_wanted_twice_is_a_fault():
    port = free_port()
    (fault,) = faults([Wanted("a", "127.0.0.1", port, "--a-port"), Wanted("b", "127.0.0.1", port, "--b-port")])
    assert "meant for both the a and the b" in fault
    assert "--b-port" in fault


def test_an_address_of_another_machine_is_a_fault():
    (fault,) = faults([Wanted("gateway", "192.0.2.1", free_port(), "--gateway-port")])
    assert "cannot be had on 192.0.2.1" in fault


def test_a_name_that_is_no_address_is_a_fault():
    (fault,) = faults([Wanted("gateway", "no such host", 4242, "--gateway-port")])
    assert "FLAGMETER_HOST" in fault
