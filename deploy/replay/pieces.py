"""A rejected row, read again by the rules of today: what it counts, or why it stays. Pure."""

import msgspec

from deploy.home_block import Counts
from schemas import event, rows
from schemas.event import Headers, Kind, Unreadable
from schemas.rows import Counted, Reason, SetAside
from schemas.tables import EvaluationKey, RejectedRow

_Pairs = list[tuple[str, bytes]]
_read_pairs = msgspec.msgpack.Decoder(_Pairs).decode


class WholeRecord(msgspec.Struct):
    """The payload of a row whose headers could not be read: the record as it was on the broker."""

    value: bytes
    headers: bytes


class Verdict(msgspec.Struct):
    """What becomes of a rejected row.

    Attributes:
        counts: yes, no and count by key; may be empty where there is nothing to count in it.
        stays: the reasons why some of it still cannot be stored; empty where all of it can.
    """

    counts: Counts
    stays: tuple[Reason, ...]


def judge(row: RejectedRow) -> Verdict:
    """Decode a row's payload by the present rules. Whether it came before was decided when it was set aside."""
    counts: dict[EvaluationKey, list[int]] = {}
    stays: dict[Reason, None] = {}
    headers, value = _record_of(row)
    for outcome in rows.of_record(headers, value):
        match outcome:
            case Counted(key, yes, no, other):
                sums = counts.setdefault(key, [0, 0, 0])
                for at, number in enumerate((yes, no, other)):
                    sums[at] += number
            case SetAside(reason):
                stays[reason] = None
    return Verdict(counts, tuple(stays))


def _record_of(row: RejectedRow) -> tuple[Headers | Unreadable, bytes]:
    if not row.kind:
        return _unreadable(row.payload.encode())
    try:
        kind = Kind(row.kind)
    except ValueError:
        return Unreadable(b"", f"kind {row.kind!r} is from a newer version"), b""
    headers = Headers(
        kind=kind,
        route=row.route,
        project=row.project,
        environment=row.environment,
        token_id="",
        received_ms=row.log_time,
        body_hash="",
    )
    return headers, row.payload.encode()


def _unreadable(payload: bytes) -> tuple[Headers | Unreadable, bytes]:
    try:
        whole = msgspec.json.decode(payload, type=WholeRecord)
    except msgspec.DecodeError as error:
        return Unreadable(b"", f"payload: {error}"), b""
    # The embedded log keeps headers packed in one value, Kafka as pairs.
    headers = event.unpack(whole.headers)
    if isinstance(headers, Unreadable):
        try:
            headers = event.from_pairs(_read_pairs(whole.headers))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return headers, whole.value
    return headers, whole.value
