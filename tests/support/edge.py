"""An Unleash Edge as its upstream sees it, by script: after what was observed of Edge 20.1.5.

It starts as an Edge does, gathers rows and posts them in bulk, and does with each answer what an Edge does.
"""

import contextlib
import json
import random
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.support.client import Answer, request

TIMEOUT_SECONDS: Final = 5.0
PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each repeat of the same bytes; up to a fifth more."""
ONE_POST_BYTES: Final = 102_400
PART_BYTES: Final = 97_280
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class EdgeExit(Exception):  # noqa: N818 - what an Edge does
    """It does not start: the process ends."""


@dataclass(frozen=True)
class Sent:
    """What became of one post.

    Attributes:
        body: its bytes, the same in every attempt.
        attempts: how often they were sent.
        status: of the answer; None where none came.
        fate: `done`, `dropped`, or `kept` for the next post.
    """

    body: bytes
    attempts: int
    status: int | None
    fate: str


class Edge:
    """One Edge before a base URL.

    Args:
        url: of its upstream, without a path.
        tokens: that it is started with; the first valid one of an environment posts that environment's rows.
        timeout: seconds until it gives up on an answer.
    """

    def __init__(self, url: str, *tokens: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = url
        self.tokens = tokens
        self.timeout = timeout
        self.valid: dict[str, dict[str, Any]] = {}
        """What the upstream said of each token that it may use."""
        self.features: dict[str, Any] = {}
        """The upstream's answer, by token."""
        self.gap = 1
        """How many intervals it lets pass before the next post."""
        self._failures = 0
        self._etags: dict[str, str] = {}
        self._rows: dict[tuple[str, ...], dict[str, Any]] = {}
        identity = "".join(secrets.choice(_CROCKFORD) for _ in range(26))
        self._headers = {
            "User-Agent": "unleash-edge-20.1.5",
            "UNLEASH-APPNAME": "unleash-edge",
            "UNLEASH-INSTANCEID": identity,
            "UNLEASH-CONNECTION-ID": identity,
            "Unleash-Client-Spec": "5.2.0",
            "Content-Type": "application/json",
        }

    # Start -----------------------------------------------------------------------------------------------------------

    def start(self) -> "Edge":
        """Validate the tokens, register each, and get each one's features.

        Raises:
            EdgeExit: the upstream answers otherwise than a server does.
        """
        for entry in self._validated():
            if not isinstance(entry.get("projects"), list) or not isinstance(entry.get("type"), str):
                raise EdgeExit("validate: an entry without projects or type")
            if entry["type"] in {"client", "backend"}:
                self.valid[entry["token"]] = entry
        if not self.valid:
            raise EdgeExit("validate: no token is valid")
        for token, entry in self.valid.items():
            status = self._send("POST", "/api/client/register", token, _registration(entry)).status
            if status not in {200, 202}:
                raise EdgeExit(f"register: {status}")
        for token in self.valid:
            self.refresh(token)
        return self

    def refresh(self, token: str) -> int:
        """Get a token's features unless they are the same as before; gives the answer's status, 200 or 304."""
        known = {"If-None-Match": self._etags[token]} if token in self._etags else {}
        answer = self._send("GET", "/api/client/features", token, **known)
        if answer.status == 304:
            return 304
        if answer.status != 200 or not {"version", "features"} <= answer.json().keys():
            raise EdgeExit(f"features: {answer.status}")
        self.features[token] = answer.json()
        if "ETag" in answer.headers:
            self._etags[token] = answer.headers["ETag"]
        return 200

    def _validated(self) -> list[dict[str, Any]]:
        answer = self._send("POST", "/edge/validate", None, {"tokens": list(self.tokens)})
        if answer.status != 200:
            raise EdgeExit(f"validate: {answer.status}")
        return list(answer.json()["tokens"])

    # Metrics ---------------------------------------------------------------------------------------------------------

    def count(self, feature: str, app: str, timestamp: str, *, yes: int = 0, no: int = 0, **variants: int) -> None:
        """Take what an SDK counted, in the environment of the first valid token."""
        environment = next(iter(self.valid.values()))["environment"]
        row = {"featureName": feature, "appName": app, "environment": environment, "timestamp": timestamp}
        self._merge([row | {"yes": yes, "no": no, "variants": variants}])

    def post_bulk(self, *applications: dict[str, Any]) -> list[Sent]:
        """Post what was gathered, in parts where it is large; gives what became of each part.

        Bytes that get no answer in time are sent again, five times at most. What is not done then is merged into the
        next post, or dropped, as an Edge does by the answer.
        """
        rows, self._rows = list(self._rows.values()), {}
        parts = [rows] if len(_bulk(rows, applications)) <= ONE_POST_BYTES else _parts(rows)
        return [self._post(part, () if at else applications) for at, part in enumerate(parts)]

    def post_instance_data(self) -> int:
        """Tell the upstream about this Edge, as it does every minute; gives the answer's status."""
        token = next(iter(self.valid))
        data = {"identifier": self._headers["UNLEASH-INSTANCEID"], "appName": "unleash-edge", "edgeVersion": "20.1.5"}
        return self._send("POST", "/api/client/metrics/edge", token, data).status

    def _post(self, rows: list[dict[str, Any]], applications: Sequence[dict[str, Any]]) -> Sent:
        body = _bulk(rows, applications)
        token = next(iter(self.valid))
        attempts = 0
        for pause in (*PAUSES, None):
            attempts += 1
            try:
                status = self._send("POST", "/api/client/metrics/bulk", token, body).status
            except OSError:
                if pause is not None:
                    time.sleep(pause * random.uniform(1, 1.2))  # noqa: S311
            else:
                return Sent(body, attempts, status, self._settle(status, rows))
        self.gap = 1
        self._merge(rows)
        return Sent(body, attempts, None, "kept")

    def _settle(self, status: int, rows: list[dict[str, Any]]) -> str:
        if status in {200, 202, 204}:
            self._failures = max(0, self._failures - 1)
            self.gap = 1 + self._failures
            return "done"
        if status in {400, 413}:
            self.gap = 1
            return "dropped"
        if status in {401, 403, 404}:
            self._failures = 10
            self.gap = 11
            return "dropped"
        if status in {429, 500, 502, 503, 504}:
            self._failures = max(10, self._failures + 1)
            self.gap = 1 + self._failures
        else:
            self.gap = 1
        self._merge(rows)
        return "kept"

    def _merge(self, rows: list[dict[str, Any]]) -> None:
        """Add rows of one app, feature, environment and hour up; the first timestamp stays."""
        for row in rows:
            key = (row["appName"], row["featureName"], row["environment"], row["timestamp"][:13])
            if key not in self._rows:
                self._rows[key] = row
                continue
            sums = self._rows[key]
            variants = Counter(sums["variants"])
            variants.update(row["variants"])
            self._rows[key] = sums | {
                "yes": sums["yes"] + row["yes"],
                "no": sums["no"] + row["no"],
                "variants": dict(variants),
            }

    def _send(self, method: str, path: str, token: str | None, content: object = None, **more: str) -> Answer:
        headers = self._headers | more
        if token is not None:
            headers["Authorization"] = token
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        return request(method, self.url + path, headers=headers, body=body, timeout=self.timeout)


def _registration(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "appName": "unleash-edge",
        "environment": entry["environment"],
        "projects": entry["projects"],
        "interval": 60,
        "started": "2026-11-22T00:37:07.385719998Z",
        "strategies": [],
        "sdkVersion": "unleash-edge:20.1.5",
        "connectVia": [],
    }


def _bulk(rows: Sequence[dict[str, Any]], applications: Sequence[dict[str, Any]]) -> bytes:
    described = {"sdkVersion": None, "sdkType": None, "yggdrasilVersion": None, "platformName": None}
    metrics = [row | described for row in rows]
    return json.dumps({"applications": list(applications), "metrics": metrics}).encode()


def _parts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    parts: list[list[dict[str, Any]]] = [[]]
    for row in rows:
        if parts[-1] and len(_bulk([*parts[-1], row], ())) > PART_BYTES:
            parts.append([])
        parts[-1].append(row)
    return parts


class LossyRelay:
    """A relay before a server that passes requests on and loses answers: the client waits until it gives up.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self.lose = 0
        """How many of the next answers to lose."""
        self.lost = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            forward = threading.Thread(target=_pump, args=(client, server), daemon=True)
            forward.start()
            answer = server.recv(65536)
            if self.lose and answer:
                self.lose -= 1
                self.lost += 1
            else:
                while answer:
                    client.sendall(answer)
                    answer = server.recv(65536)
            forward.join()  # until the client closes


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
