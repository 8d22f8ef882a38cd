"""A fleet that changes one host: an unmodified SDK against the stack, in front of an Unleash server (acceptance 7)."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

from tests.support.stack import Stack
from tests.support.waiting import wait_for

TAG = '"6ef7ec5a:12:v1"'
FEATURES = {
    "version": 2,
    "features": [
        {"name": "on", "enabled": True, "strategies": [{"name": "default"}]},
        {"name": "off", "enabled": False, "strategies": [{"name": "default"}]},
    ],
}


class UnleashServer(ThreadingHTTPServer):
    """Gives features with an ETag, takes metrics, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, int]] = []
        self.posted: list[dict[str, object]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: UnleashServer

    def do_GET(self) -> None:
        unchanged = self.headers["If-None-Match"] == TAG
        body = b"" if unchanged else json.dumps(FEATURES).encode()
        self._answer(304 if unchanged else 200, body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append({"path": self.path, "token": self.headers["Authorization"], **json.loads(body)})
        self._answer(202, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.server.asked.append((self.command, self.path, status))
        self.send_response(status)
        self.send_header("ETag", TAG)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[UnleashServer]:
    made = UnleashServer()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(10)


def test_an_sdk_that_knows_only_the_gateway_gets_its_features_and_is_counted(
    server: UnleashServer, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    stack = Stack(tmp_path / "data", FLAGMETER_UNLEASH_URL=url, FLAGMETER_UNLEASH_MIRROR="on").start()
    try:
        token = stack.tokens["backend"]
        client = UnleashClient(
            url=f"{stack.gateway}/api",
            app_name="shop",
            instance_id="one",
            custom_headers={"Authorization": token},
            refresh_interval=1,
            metrics_interval=1,
            cache=FileCache("shop", directory=str(tmp_path)),
            cache_directory=str(tmp_path),
        )
        client.initialize_client()
        try:
            assert [client.is_enabled(flag) for flag in ("on", "off") for _ in range(50)] == [True] * 50 + [False] * 50
            features = ("GET", "/api/client/features")
            wait_for(lambda: {(*features, 200), (*features, 304)} <= set(server.asked), what="a poll with the ETag")
        finally:
            client.destroy()  # posts what is left
        total = "SELECT sum(evaluations) FROM evaluations WHERE app_name = 'shop'"
        wait_for(lambda: stack.number(total) >= 100, what="the last evaluation")
        counted = "SELECT feature, toString(sum(yes)), toString(sum(no)) FROM evaluations GROUP BY feature"
        assert sorted(stack.sql(counted)) == [["off", "0", "50"], ["on", "50", "0"]]
        wait_for(lambda: mirrored(server) == {"on": (50, 0), "off": (0, 50)}, what="the last mirrored post")
        assert {post["token"] for post in server.posted} == {token}
        assert {post["path"] for post in server.posted} == {"/api/client/metrics", "/api/client/register"}
        assert stack.stop() == 0
        assert token not in stack.logged()
    finally:
        stack.kill()


def mirrored(server: UnleashServer) -> dict[str, tuple[int, int]]:
    """Sum what the server was told of each flag."""
    found: dict[str, tuple[int, int]] = {}
    for post in server.posted:
        bucket = post.get("bucket")
        if isinstance(bucket, dict):
            for flag, counts in bucket["toggles"].items():
                yes, no = found.get(flag, (0, 0))
                found[flag] = (yes + counts["yes"], no + counts["no"])
    return found
