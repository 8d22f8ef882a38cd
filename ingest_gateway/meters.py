"""The gateway's own metrics, each bound once: looking a labelled one up for every request costs more than counting."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from schemas import metric_names as names


class Meters:
    """What is counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = names.counter(names.REQUESTS, registry)
        self.request_seconds = names.histogram(names.REQUEST_SECONDS, registry)
        self.lenient = names.counter(names.LENIENT, registry)
        self.appended = names.counter(names.APPENDED, registry)
        self.append_seconds = names.histogram(names.APPEND_SECONDS, registry)
        self.append_errors = names.counter(names.APPEND_ERRORS, registry)
        self.partitions_away = names.gauge(names.PARTITIONS_AWAY, registry)
        self.producers_failed = names.counter(names.PRODUCERS_FAILED, registry)
        self.in_flight_bytes = names.gauge(names.IN_FLIGHT_BYTES, registry)
        self.shed = names.counter(names.SHED, registry)
        self.passed = names.counter(names.PASSED, registry)
        self.passed_seconds = names.histogram(names.PASSED_SECONDS, registry)
        self.open_streams = names.gauge(names.OPEN_STREAMS, registry)
        self.mirrored = names.counter(names.MIRRORED, registry)
        self.token_questions = names.counter(names.TOKEN_QUESTIONS, registry)
        self.token_seconds = names.histogram(names.TOKEN_SECONDS, registry)
        self.tokens_cached = names.gauge(names.TOKENS_CACHED, registry)
        self.token_upstream_away = names.gauge(names.TOKEN_UPSTREAM_AWAY, registry)


class RouteMeters:
    """One route's share: how long its requests take, and with which status they end."""

    __slots__ = ("_meters", "_path", "_seconds", "_statuses")

    def __init__(self, meters: Meters, path: str) -> None:
        self._meters = meters
        self._path = path
        self._seconds: Histogram = meters.request_seconds.labels(path)
        self._statuses: dict[int, Counter] = {}

    def count(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self._seconds.observe(seconds)
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._meters.requests.labels(self._path, str(status))
        counter.inc()
