"""A page about a pipeline: read what is stored, write it as one HTML file. Reads only."""

from __future__ import annotations

from pathlib import Path

from tasks.database import resolve_url
from tasks.errors import UsageError
from tasks.overview import GENERATIONS, read_overview
from tasks.page import write_page
from tasks.settings import Settings


def report(
    settings: Settings,
    pipeline: str,
    *,
    out: Path | None = None,
    generations: int = GENERATIONS,
    show_values: bool = False,
) -> Path:
    """Write the page about a pipeline and return its path: ``out``, or ``<pipeline>-report.html`` in the current folder.

    Raises
    ------
    PipelineNeverRan
    UsageError
        When the file cannot be written.
    """
    overview = read_overview(resolve_url(settings), pipeline, generations)
    path = (out or Path(f"{pipeline}-report.html")).resolve()
    try:
        path.write_text(write_page(overview, show_values=show_values), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}. Nothing was changed. Name another file with --out."
        ) from None
    return path
