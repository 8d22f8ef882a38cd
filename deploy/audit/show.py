"""How an audit is printed: a table for people, or JSON."""

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.audit.markers import Spans
from deploy.audit.report import PartitionReport, Report, spans_of

_LISTED = 10


def as_json(report: Report) -> str:
    """Write the whole report as one JSON document."""
    return msgspec.json.encode(report).decode()


def show(report: Report) -> None:
    """Print the report for people."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title=f"log {report.topic_id or '(not looked at)'}", title_justify="left")
    table.add_column("partition")
    for column in ("judged from", "stored up to", "batches", "holes", "overlaps", "duplicates", "lost, accepted"):
        table.add_column(column, justify="right")
    for column in ("committed", "log", "not stored"):
        table.add_column(column, justify="right")
    for each in report.partitions:
        table.add_row(*_row(each, report.topic_id))
    console.print(table)
    for each in report.partitions:
        for line in _faults(each):
            console.print(line, markup=False)
    if report.replayed.rows:
        console.print(f"{report.replayed.rows:,} rejected rows were replayed, {report.replayed.twice:,} more than once")
    if report.watermark is not None:
        waiting = "nothing waits" if report.caught_up else "later records may wait"
        console.print(f"everything appended before {_iso(report)} is stored ({waiting})")
    console.print(
        "exact: neither hole nor duplicate" if report.exact else "NOT exact: see above, and docs/operations.md"
    )


def _row(each: PartitionReport, current: str | None) -> list[str]:
    marked, log = each.markers, each.log
    name = str(marked.partition) if marked.topic_id == current else f"{marked.topic_id}/{marked.partition}"
    numbers = [
        str(marked.floor),
        "" if marked.last is None else str(marked.last),
        f"{marked.batches:,}",
        *(_positions(spans) for spans in (marked.holes, marked.overlaps, marked.duplicates, marked.accepted)),
    ]
    if log is None:
        return [name, *numbers, "", "", ""]
    committed = "" if log.committed is None else str(log.committed)
    return [name, *numbers, committed, f"{log.begin}..{log.end - 1}", f"{log.lag:,}"]


def _positions(spans: Spans) -> str:
    return f"{spans.ranges:,} ({spans.positions:,})" if spans.ranges else "0"


def _faults(each: PartitionReport) -> list[str]:
    marked, log = each.markers, each.log
    lines = []
    for name, spans in spans_of(marked):
        listed = ", ".join(str(span) for span in spans.shown[:_LISTED])
        more = f" and {spans.ranges - _LISTED:,} more" if spans.ranges > _LISTED else ""
        lines.append(f"partition {marked.partition}: {name}: {listed}{more}")
    if log and log.lost:
        lines.append(f"partition {marked.partition}: acknowledged or gone, and not stored: {log.lost}")
    if log and log.stopped:
        lines.append(f"partition {marked.partition}: stopped: {log.stopped}")
    return lines


def _iso(report: Report) -> str:
    return report.watermark.isoformat(timespec="milliseconds").replace("+00:00", "Z") if report.watermark else ""
