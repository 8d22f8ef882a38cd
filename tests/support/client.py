"""One HTTP request on a connection of its own, as bytes: nothing is followed, decoded or added."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        """ClickHouse's error number; 0 when there was none."""
        return int(self.headers.get("X-ClickHouse-Exception-Code", "0"))

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | str | None = None,
    timeout: float = 15,
) -> Answer:
    """Send one request; an error status is an answer like any other.

    Raises:
        OSError: nobody answers.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(
            method, path or "/", body.encode() if isinstance(body, str) else body, headers=dict(headers or {})
        )
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def is_ok(url: str) -> bool:
    """Say whether somebody answers with 200; nobody there is no."""
    try:
        return request("GET", url, timeout=2).status == 200
    except OSError:
        return False
