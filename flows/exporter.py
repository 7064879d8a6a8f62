"""The exporter: metrics over HTTP on loopback, for as long as `prescore serve` runs. Importing it imports no Prefect."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tasks import metrics
from tasks.errors import PrescoreError
from tasks.settings import METRICS_PORT, Settings

HOST = "127.0.0.1"
PATH = "/metrics"


@contextmanager
def expose(settings: Settings) -> Iterator[str | None]:
    """Answer scrapers while the context lasts, on the port that the settings name; yields the address, None without one.

    A database that does not answer is told as ``prescore_up 0``, with HTTP 200: the exporter itself is well.

    Raises
    ------
    PrescoreError
        When something else listens on the port.
    """
    if settings.metrics_port is None:
        yield None
        return
    try:
        server = ThreadingHTTPServer((HOST, settings.metrics_port), _handler(settings))
    except OSError as error:
        raise PrescoreError(
            f"Port {settings.metrics_port} on {HOST} cannot be used for metrics ({error.strerror}). Nothing was started. "
            f"Set {METRICS_PORT} to a free port, or unset it."
        ) from None
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="prescore metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}{PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(settings: Settings) -> type[BaseHTTPRequestHandler]:
    # One at a time looks at the database, however many scrapers there are.
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics."""

        # Seconds that a client may take to say what it wants.
        timeout = 10

        def do_GET(self) -> None:
            """Look, and answer in the format that the scraper asks for."""
            if self.path.split("?", 1)[0] != PATH:
                self.send_error(404, "Metrics are at " + PATH)
                return
            wanted = self.headers.get("Accept", "")
            form = metrics.OPENMETRICS if "application/openmetrics-text" in wanted else metrics.PROMETHEUS
            with turn:
                text = metrics.write(metrics.read(settings), form).encode("utf-8")
            self.send_response(200)
            self.send_header("Content-Type", metrics.content_type(form))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Say nothing of each scrape."""

    return Handler
