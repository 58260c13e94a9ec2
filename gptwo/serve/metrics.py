"""Numbers for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gptwo.serve.worker import Worker

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What GET /metrics tells. Gauges are read from the worker when they are asked for."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gptwo_requests", "Requests answered.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "gptwo_request_seconds",
            "From a request to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "gptwo_first_token_seconds",
            "From a request to its first token.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.read = self._count("gptwo_prompt_tokens", "Tokens of prompts.")
        self.cached = self._count("gptwo_cached_tokens", "Tokens of prompts known from before.")
        self.written = self._count("gptwo_written_tokens", "Tokens written.")
        engine = worker.engine
        for name, told, value in (
            ("gptwo_texts_running", "Texts being written.", lambda: len(engine.running)),
            ("gptwo_texts_waiting", "Texts waiting for a row.", lambda: len(engine.waiting)),
            ("gptwo_prefix_bytes", "Memory of prompts kept.", lambda: engine.prefixes.bytes),
        ):
            Gauge(name, told, registry=self.registry).set_function(value)

    def _count(self, name: str, told: str) -> Counter:
        return Counter(name, told, registry=self.registry)
