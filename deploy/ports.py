"""Find out before anything starts whether the ports are free, so that the answer can name the option to change."""

import errno
import socket
from collections.abc import Iterable
from typing import NamedTuple


class Wanted(NamedTuple):
    """A port that a service is going to listen on."""

    service: str
    host: str
    port: int
    option: str


def faults(wanted: Iterable[Wanted]) -> list[str]:
    """Try each port, and say what is wrong with it and which option chooses another; free ports give nothing."""
    found = []
    seen: dict[int, str] = {}
    for port in wanted:
        if port.port in seen:
            found.append(
                f"port {port.port} is meant for both the {seen[port.port]} and the {port.service}: "
                f"choose another with {port.option}"
            )
            continue
        seen[port.port] = port.service
        why = _why_not(port.host, port.port)
        if why:
            found.append(
                f"port {port.port} ({port.service}) {why}: stop what uses it, or choose another with {port.option}"
            )
    return found


def _why_not(host: str, port: int) -> str:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        return f"cannot be had: FLAGMETER_HOST {host!r} is no address of this machine ({error.strerror})"
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as attempt:
            # As servers set it: connections of an earlier start that are still closing do not count.
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                attempt.bind(address)
                attempt.listen(1)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return f"is in use on {host}"
                return f"cannot be had on {host} ({error.strerror})"
    return ""
