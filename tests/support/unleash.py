"""A small Unleash server for tests: it knows tokens and features, and takes registrations."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class UnleashStub:
    """Listens on a free loopback port; `known` are its tokens as it describes them, `asked` its requests' paths."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.features: dict[str, Any] = {"version": 2, "features": []}
        self.etag = '"1"'
        self.status = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def add(self, token: str, **changes: Any) -> str:
        self.known[token] = {"token": token, "type": "client", "projects": ["default"], "environment": "development"}
        self.known[token] |= changes
        return token

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stub.asked.append(self.path)
                if self.path != "/api/client/features":
                    self._answer(404, b"{}")
                elif self.headers["Authorization"] not in stub.known:
                    self._answer(401, b"{}")
                elif self.headers["If-None-Match"] == stub.etag:
                    self._answer(304, b"", ETag=stub.etag)
                else:
                    self._answer(stub.status, json.dumps(stub.features).encode(), ETag=stub.etag)

            def do_POST(self) -> None:
                stub.asked.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if self.path != "/edge/validate":
                    self._answer(404, b"{}")
                    return
                found = [stub.known[text] for text in json.loads(body)["tokens"] if text in stub.known]
                self._answer(stub.status, json.dumps({"tokens": found}).encode())

            def _answer(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
