"""What a model server counts, for Prometheus: calls, named as the gRPC ecosystem names them, and runs of its models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
REQUESTS: Final = (1, 2, 4, 8, 16, 32)
CALL: Final = ("grpc_service", "grpc_method")


class InFlight:
    """Calls of one method that are being answered, and the seconds of all calls up to now."""

    def __init__(self) -> None:
        # One tuple, since it is read from another thread: calls, seconds up to a time, the time.
        self._state = (0, 0.0, time.perf_counter())

    def change(self, by: int, now: float) -> None:
        """So many more."""
        calls, seconds, since = self._state
        self._state = (calls + by, seconds + calls * (now - since), now)

    def read(self) -> tuple[int, float]:
        """Both, as they are now."""
        calls, seconds, since = self._state
        return calls, seconds + calls * max(0.0, time.perf_counter() - since)


class _InFlightCollector(Collector):
    """Those of all methods, as Prometheus reads them."""

    def __init__(self) -> None:
        self.methods: dict[tuple[str, str], InFlight] = {}

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        now = GaugeMetricFamily("easyml_calls_in_flight", "Calls that are being answered.", labels=CALL)
        seconds = CounterMetricFamily(
            "easyml_call_seconds", "Seconds of all calls up to now; its rate is how many are in flight.", labels=CALL
        )
        for labels, method in list(self.methods.items()):
            calls, spent = method.read()
            now.add_metric(labels, calls)
            seconds.add_metric(labels, spent)
        yield now
        yield seconds


class MethodMetrics:
    """Calls of one method."""

    def __init__(self, handled: Counter, seconds: Histogram, in_flight: InFlight, labels: tuple[str, str]) -> None:
        self._handled = handled
        self._labels = labels
        self._seconds = seconds.labels(*labels)
        self._in_flight = in_flight
        self._by_code: dict[grpc.StatusCode, Counter] = {}

    def began(self) -> float:
        """A call came; what to hand to `ended`."""
        now = time.perf_counter()
        self._in_flight.change(1, now)
        return now

    def ended(self, began: float, code: grpc.StatusCode) -> None:
        """It was answered so."""
        now = time.perf_counter()
        self._in_flight.change(-1, now)
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._handled.labels(*self._labels, _as_in_go(code))
        counter.inc()
        self._seconds.observe(now - began)


class RunMetrics:
    """Runs of one model."""

    def __init__(self, seconds: Histogram, requests: Histogram, rows: Counter) -> None:
        self._seconds = seconds
        self._requests = requests
        self._rows = rows

    @contextmanager
    def run(self, requests: int, rows: int) -> Iterator[None]:
        """A run that answers so many requests with so many rows."""
        began = time.perf_counter()
        yield
        self._seconds.observe(time.perf_counter() - began)
        self._requests.observe(requests)
        self._rows.inc(rows)


class ServingMetrics:
    """All that a model server counts."""

    def __init__(self) -> None:
        # Described, so that whoever asks for a few by name gets those of the process too.
        self.registry = CollectorRegistry(auto_describe=True)
        self._handled = Counter(
            "grpc_server_handled", "Calls that ended, by their code.", [*CALL, "grpc_code"], registry=self.registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from the first message of a call to its end.",
            CALL,
            buckets=SECONDS,
            registry=self.registry,
        )
        self._in_flight = _InFlightCollector()
        self.registry.register(self._in_flight)
        model = ["model_version_id"]
        self._run_seconds = Histogram(
            "easyml_model_run_seconds",
            "Time of one run of a model, without waiting for it.",
            model,
            buckets=SECONDS,
            registry=self.registry,
        )
        self._run_requests = Histogram(
            "easyml_model_run_requests",
            "Requests that one run answered together.",
            model,
            buckets=REQUESTS,
            registry=self.registry,
        )
        self._rows = Counter("easyml_model_rows", "Rows that were predicted.", model, registry=self.registry)
        self._memory = Gauge(
            "easyml_model_memory_bytes", "What a loaded model is taken to need.", model, registry=self.registry
        )
        self._loads = Counter("easyml_model_loads", "Times that a model was loaded.", model, registry=self.registry)
        self._exchanges = Counter(
            "easyml_model_exchanges", "Files of models that were read again.", ["outcome"], registry=self.registry
        )
        self._models: dict[str, RunMetrics] = {}
        ProcessCollector(registry=self.registry)

    def method(self, service: str, method: str) -> MethodMetrics:
        """Of one method; made once."""
        in_flight = self._in_flight.methods[service, method] = InFlight()
        return MethodMetrics(self._handled, self._seconds, in_flight, (service, method))

    def model(self, version_id: str) -> RunMetrics:
        """Of one model."""
        found = self._models.get(version_id)
        if found is None:
            found = self._models[version_id] = RunMetrics(
                self._run_seconds.labels(version_id),
                self._run_requests.labels(version_id),
                self._rows.labels(version_id),
            )
        return found

    def loaded(self, version_id: str, size: int) -> None:
        """A model came into memory."""
        self._memory.labels(version_id).set(size)
        self._loads.labels(version_id).inc()

    def let_go(self, version_id: str) -> None:
        """It left."""
        self._memory.remove(version_id)

    def exchanged(self, *, accepted: bool) -> None:
        """A file of models was read again."""
        self._exchanges.labels("accepted" if accepted else "refused").inc()


def _as_in_go(code: grpc.StatusCode) -> str:
    """As Go's library writes codes, which dashboards are made for: OK, NotFound."""
    return "OK" if code is grpc.StatusCode.OK else "".join(word.capitalize() for word in code.name.split("_"))
