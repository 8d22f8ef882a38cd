"""Requests that a web page may have caused are refused: any page can post text to a port on loopback."""

from collections.abc import Mapping
from typing import Final

from deploy.store.errors import ACCESS_DENIED, Fault

_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


def check(headers: Mapping[str, str]) -> None:
    """Refuse what a browser sends for a page, and any name that is not loopback's own (DNS rebinding).

    `Sec-Fetch-Site: none` is an address typed by a person; everything else of that header comes from a page.

    Raises:
        Fault: ACCESS_DENIED.
    """
    if "Origin" in headers:
        raise Fault(ACCESS_DENIED, "Requests of web pages are refused (header Origin)")
    if headers.get("Sec-Fetch-Site", "none").lower() != "none":
        raise Fault(ACCESS_DENIED, "Requests of web pages are refused (header Sec-Fetch-Site)")
    host = headers.get("Host", "").lower()
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    if name not in _HOSTS or not (port.isascii() and port.isdigit()):
        raise Fault(ACCESS_DENIED, "The embedded store answers to 127.0.0.1, localhost and [::1] only (header Host)")
