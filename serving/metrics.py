"""What `GET /metrics` counts (H-35), in memory that all workers share and no file backs (H-36).

Each worker writes a row of cells of its own, from its event loop only: there is no lock. A reader adds the rows up. A worker
that replaces another goes on in its row, so that no counter ever falls.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BerthError
from serving.drift import Counts, Drift

BUCKETS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of the latency histogram: one row takes some 0.1 ms, an invocation at most 60 s (H-11)."""
GONE = 499
"""The status under which a request is counted whose client closed before the answer; nginx's number."""
OTHER = "other"
"""The route of every path that nothing answers at, and the rest of what isn't listed: labels must stay few."""

ALIVE, IN_PROGRESS, ROWS, FIRST = range(4)


class Metrics:
    """The counters of every worker.

    Args:
        routes: every path of the table, with its parts in braces.
        drift: what is counted of features.
        slots: rows of cells, one a worker; workers beyond that share the last.
    """

    def __init__(self, routes: Sequence[str], drift: Drift, slots: int) -> None:
        errors = list(_errors(BerthError))
        statuses = sorted({200, GONE, *(error.status for error in errors)})
        self.routes = [*dict.fromkeys(routes), OTHER]
        self.statuses = [*map(str, statuses), OTHER]
        self.codes = [*dict.fromkeys(error.code for error in errors), OTHER]
        self.drift = drift
        self.count_models: Callable[[], int] = lambda: 1
        self._route_index = {path: index for index, path in enumerate(self.routes)}
        self._status_index = {status: index for index, status in enumerate(statuses)}
        self._code_index = {code: index for index, code in enumerate(self.codes)}
        self._other_route, self._other_status, self._other_code = (
            len(names) - 1 for names in (self.routes, self.statuses, self.codes)
        )
        self._requests = FIRST
        self._errors = self._requests + len(self.routes) * len(self.statuses)
        self._latency = self._errors + len(self.codes)
        self._latency_width = len(BUCKETS_S) + 2  # one more for what is slower, one for the sum of seconds
        self._features = self._latency + len(self.routes) * self._latency_width
        size = self._features + len(drift.counters)
        # Anonymous and shared: a full /tmp, a read-only file system and a missing /dev/shm are nothing to it.
        shared = mmap.mmap(-1, slots * size * 8)
        self._rows: NDArray[np.float64] = np.frombuffer(shared, dtype=np.float64).reshape(slots, size)
        self._use(0)

    # What the arbiter calls

    def take_slot(self, taken: Collection[int]) -> int:
        """Return the slot for a worker that is about to be forked; it goes on with what is there, but for the gauges."""
        last = len(self._rows) - 1
        slot = next((slot for slot in range(last) if slot not in taken), last)
        self._use(slot)
        self._cells[ALIVE], self._cells[IN_PROGRESS] = 1, 0
        return slot

    def free_slot(self, slot: int) -> None:
        """Be told of a worker's end."""
        self._rows[slot, ALIVE] = self._rows[slot, IN_PROGRESS] = 0

    def _use(self, slot: int) -> None:
        row = self._rows[slot]
        self._cells: Any = memoryview(row)  # of float64: one cell is three times as fast this way as through NumPy
        self._drift_cells = row[self._features :]

    # What a worker's event loop calls

    def begin(self) -> None:
        """Count a request that is being answered."""
        self._cells[IN_PROGRESS] += 1

    def end(self) -> None:
        """Count it no longer."""
        self._cells[IN_PROGRESS] -= 1

    def record(self, path: str, status: int, code: str, seconds: float) -> None:
        """Count an answer.

        Args:
            path: of the route, as the table has it.
            status: of the answer.
            code: of the error, empty for none.
            seconds: from the request's head to the answer.
        """
        cells = self._cells
        route = self._route_index.get(path, self._other_route)
        cells[self._requests + route * len(self.statuses) + self._status_index.get(status, self._other_status)] += 1
        if code:
            cells[self._errors + self._code_index.get(code, self._other_code)] += 1
        latency = self._latency + route * self._latency_width
        cells[latency + bisect_left(BUCKETS_S, seconds)] += 1
        cells[latency + len(BUCKETS_S) + 1] += seconds

    def record_rows(self, rows: int, counts: Counts | None) -> None:
        """Count predicted rows and, where they were looked at, their features' values."""
        self._cells[ROWS] += rows
        if counts is not None:
            self._drift_cells += counts

    # What /metrics calls

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return all workers' counters as Prometheus reads them, and the content type; Accept may name OpenMetrics."""
        from prometheus_client import CollectorRegistry  # only servers that are asked have it in memory
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics; routes, statuses and codes that never were are left out."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        cells: NDArray[np.float64] = self._rows.sum(axis=0)
        table = cells[self._requests : self._errors].reshape(len(self.routes), -1)
        requests = CounterMetricFamily("berth_requests", "Requests answered.", labels=("route", "status"))
        for route, status in np.argwhere(table):
            requests.add_metric((self.routes[route], self.statuses[status]), table[route, status])
        yield requests
        errors = CounterMetricFamily("berth_errors", "Errors answered, by their code.", labels=("code",))
        for code, count in zip(self.codes, cells[self._errors : self._latency], strict=True):
            if count:
                errors.add_metric((code,), count)
        yield errors
        yield self._histogram(cells)
        yield CounterMetricFamily("berth_rows", "Rows predicted.", value=cells[ROWS])
        yield from self._feature_families(cells[self._features :])
        yield GaugeMetricFamily("berth_requests_in_progress", "Requests being answered.", value=cells[IN_PROGRESS])
        yield GaugeMetricFamily("berth_workers", "Worker processes.", value=cells[ALIVE])
        yield GaugeMetricFamily("berth_models_loaded", "Models loaded.", value=self.count_models())

    def _histogram(self, cells: NDArray[np.float64]) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        about = "From the head of a request to its answer, the time its body takes to arrive included."
        family = HistogramMetricFamily("berth_request_duration_seconds", about, labels=("route",))
        table = cells[self._latency : self._features].reshape(len(self.routes), self._latency_width)
        bounds = [*map(str, BUCKETS_S), "+Inf"]
        for path, row in zip(self.routes, table, strict=True):
            if row[:-1].any():
                family.add_metric((path,), list(zip(bounds, row[:-1].cumsum(), strict=True)), sum_value=row[-1])
        return family

    def _feature_families(self, counts: NDArray[np.float64]) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        outside = "Values of a feature that are missing, or outside what training saw."
        values = CounterMetricFamily("berth_feature_values", outside, labels=("feature", "what"))
        choices = CounterMetricFamily("berth_feature_choices", "Values of a category.", labels=("feature", "choice"))
        for counter, count in zip(self.drift.counters, counts, strict=True):
            (choices if counter.is_choice else values).add_metric((counter.feature, counter.what), count)
        yield values
        yield choices


def _errors(cls: type[BerthError]) -> Iterator[type[BerthError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _errors(child)
