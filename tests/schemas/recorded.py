"""The recorded rows, as far as they say something about payloads."""

import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "conformance" / "unleash"
REQUEST_FILES = ("client_metrics.jsonl", "bulk_metrics.jsonl", "frontend_register_misc.jsonl")


def rows(name: str) -> list[dict[str, Any]]:
    """Read one file of the recording."""
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines() if line.strip()]


def body_of(request: dict[str, Any]) -> bytes:
    """Give the body as the decoder gets it: after decompression."""
    raw = base64.b64decode(request["body_b64"]) if "body_b64" in request else json.dumps(request["body"]).encode()
    match request["headers"].get("Content-Encoding"):
        case "gzip":
            return gzip.decompress(raw)
        case "deflate":
            return zlib.decompress(raw)
    return raw


def is_about_the_payload(row: dict[str, Any]) -> bool:
    """Say whether the payload decided the answer, and not a token, a header or a path."""
    return row["request"]["method"] == "POST" and row["response"]["status"] in {200, 202, 204, 400}
