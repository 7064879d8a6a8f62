"""The page about a pipeline, from made-up runs; stored ones are in tests/end_to_end/test_report_page.py."""

from __future__ import annotations

import base64
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as Tree

import numpy as np
import pyarrow as pa
import pytest

from tasks.columns import Column
from tasks.health import PipelineHealth
from tasks.history import PastRun, StoredFinding
from tasks.overview import Overview, Quarantined
from tasks.page import draw_pictures, write_page
from tasks.population import Mode
from tasks.profiles import ModelProfile, ProfileCounter, StoredProfile, build_profile
from tasks.timeline import Publication

AT = datetime(2026, 3, 1, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOSTILE = "<script src=//evil.example></script>\"'&'<img onerror=x>"


class Page(HTMLParser):
    """What a browser finds on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.depth: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def loads(self) -> list[str]:
        """Return everything that a browser would fetch, or run."""
        named = [
            value or ""
            for tag, attributes in self.tags
            for name, value in attributes.items()
            if name in {"src", "href", "srcset", "data", "action"} or name.startswith("on")
        ]
        return named + [tag for tag, _ in self.tags if tag in {"script", "link", "iframe", "object", "img"}]


def health(**values: Any) -> PipelineHealth:
    known: dict[str, Any] = {field.name: None for field in fields(PipelineHealth)}
    known |= {"pipeline": "churn", "state": "missing", "overdue": False, "pinned": False, "model_pending": False}
    known |= {field.name: [] for field in fields(PipelineHealth) if "list" in str(field.type)}
    return PipelineHealth(**{**known, **values})


def finding(check_id: str, verdict: str = "pass", subject: str = "", **values: Any) -> StoredFinding:
    known: dict[str, Any] = {field.name: None for field in fields(StoredFinding)}
    known |= {
        "run_id": 1,
        "check_id": check_id,
        "code": "X1",
        "class_": "gauge",
        "subject": subject,
        "verdict": verdict,
    }
    known |= {"effective": verdict, "waived": False, "followups": (), "reason": f"{check_id} says", "evidence": {}}
    return StoredFinding(**{**known, **values})


def run(run_id: int, status: str = "published", *findings: StoredFinding, **values: Any) -> PastRun:
    known: dict[str, Any] = {field.name: None for field in fields(PastRun)}
    at = AT + run_id * 24 * HOUR
    known |= {"run_id": run_id, "pipeline": "churn", "status": status, "trigger": "scheduled", "mode": "full"}
    known |= {
        "as_of": at,
        "clock_at": at,
        "started_at": at,
        "contract_digest": "",
        "model": "churn",
        "model_version": 1,
    }
    return PastRun(**{**known, "findings": findings, **values})


def publication(generation_id: int, **values: Any) -> Publication:
    at = AT + generation_id * 24 * HOUR
    return Publication(
        **{
            "generation_id": generation_id,
            "run_id": generation_id,
            "published_at": at,
            "as_of": at,
            "data_as_of": at,
            "aging_at": at + 26 * HOUR,
            "stale_at": at + 36 * HOUR,
            "expires_at": at + 108 * HOUR,
            "model_aging_at": at + 900 * HOUR,
            "model_stale_at": at + 1800 * HOUR,
            "verdict": "pass",
            **values,
        }
    )


def profiled(table: pa.Table, outputs: pa.Table, now: pa.Table, outputs_now: pa.Table) -> dict[str, Any]:
    """Return what an overview holds of columns: bins of training, and counts of run 1."""
    kinds = {"double": "double precision", "string": "text"}
    columns = [Column(name=field.name, postgres_type=kinds[str(field.type)]) for field in table.schema]
    trained = ModelProfile.from_bundle(build_profile(table, columns, outputs))
    counter = ProfileCounter(trained)
    counter.add(now.to_batches()[0], outputs_now.to_batches()[0])
    stored = StoredProfile(
        run_id=1,
        mode=Mode.FULL,
        as_of=AT,
        model="churn",
        model_version=1,
        features=counter.features,
        outputs=counter.outputs,
    )
    return {"profiles": {1: stored}, "trained": {1: trained}}


def overview(*runs: PastRun, **values: Any) -> Overview:
    known: dict[str, Any] = {"health": health(), "now": AT + 60 * HOUR, "runs": runs, "publications": ()}
    return Overview(**{**known, **values})


SERVED = {"state": "aging", "generation_id": 1, "rows": 1234, "model": "churn", "model_version": 3}
SERVED |= {"age": 30 * HOUR, "aging_at": AT, "stale_at": AT + 70 * HOUR, "expires_at": AT + 140 * HOUR}
SPECIAL = {
    "nothing was ever published, and nothing ran": overview(),
    "runs were only ever held": overview(
        run(1, "held", finding("source.age", "fail", "shop.orders", class_="clock"), message="Held: too old."),
    ),
    "one generation without a profile, without labels": overview(
        run(1), health=health(**SERVED), publications=(publication(1),)
    ),
    "the run is at work and has found nothing yet": overview(run(1, "running")),
    "a publication was undone, another is quarantined": overview(
        run(1),
        run(2),
        publications=(publication(1, quarantined_at=AT + 50 * HOUR), publication(2, undone_at=AT + 55 * HOUR)),
        quarantines=(
            Quarantined(
                generation_id=1,
                because="a bad load",
                effect="masked",
                returned_to=None,
                quarantined_at=AT,
                quarantined_by="ops",
                released_at=None,
                released_by=None,
                released_because=None,
            ),
        ),
    ),
    "a metric without an interval, an estimate without a metric": overview(
        run(1, "published", finding("performance.metric", "pass", unit="auc", observed=0.8, fail_limit=0.7)),
        run(2, "published", finding("performance.estimate", "pass", unit="auc", observed=0.79)),
        run(3, "published", finding("performance.metric", "unknown")),
    ),
}


@pytest.mark.parametrize("told", SPECIAL.values(), ids=SPECIAL.keys())
def test_the_page_is_whole_and_loads_nothing_when(told: Overview) -> None:
    page = Page(text := write_page(told))

    assert page.loads() == []
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert {"Who got a prediction", "Was the model right?", "What is wrong, and what to do"} <= set(page.words)


def test_it_says_the_state_what_is_wrong_and_what_to_do() -> None:
    drifted = [
        finding("drift.input", "fail", "country", observed=0.41, followups=("investigate",), reason="0.41, limit 0.25"),
        finding("drift.input", "pass", "visits", observed=0.01),
        finding("drift.inputs", "fail", effective="warn", followups=("retrain",), reason="31% of the importance"),
        finding("rows.missing", "pass", observed=0.0),
    ]
    told = overview(
        run(1, "published", *drifted, population=100, scored=90, unchanged=7, rejected=3, gone=2),
        health=health(**SERVED, overdue=True, pinned=True),
        publications=(publication(1),),
    )
    page = Page(write_page(told))

    assert "Aging and overdue and pinned" in page.text
    assert "stale from 2026-03-04 01:00:00 UTC (in 10 h 0 min)" in page.text
    assert "A scheduled run is overdue" in page.text
    assert "prescore resume churn" in page.text
    assert "Is a feature still distributed as in training? country" in page.text
    assert "prescore train churn" in page.text
    assert "0.41 fail" in page.text
    assert "fail, counts as warn" in page.text
    assert "Readers saw fresh for 26 h 0 min, aging for 10 h 0 min." in page.text


def test_it_escapes_every_name_and_text_that_a_stranger_may_have_chosen() -> None:
    names = {HOSTILE: pa.array(["a", "b"] * 300), "plain": pa.array(np.linspace(0, 1, 600))}
    table, outputs = pa.table(names), pa.table({HOSTILE: np.linspace(0, 1, 600)})
    found = [
        finding("drift.input", "fail", HOSTILE, observed=0.4, reason=HOSTILE),
        finding("performance.metric", "warn", unit=HOSTILE, observed=0.5, reason=HOSTILE, evidence={"low": 0.4}),
        finding(HOSTILE, "unknown", HOSTILE, waived=True),
    ]
    told = overview(
        run(1, "held", *found, message=HOSTILE),
        health=health(**{**SERVED, "pipeline": HOSTILE, "model": HOSTILE}),
        publications=(publication(1),),
        **profiled(table, outputs, table, outputs),
    )
    text = write_page(told, show_values=True)

    assert Page(text).loads() == []
    assert "<script" not in text
    assert "<img" not in text


def test_values_of_the_data_are_named_only_when_asked_for() -> None:
    secret = pa.table({"city": ["Atlantis"] * 500 + ["Utopia"] * 100, "income": np.linspace(71_234.0, 98_765.0, 600)})
    outputs = pa.table({"segment": ["gold"] * 400 + ["zinc"] * 200, "amount": np.linspace(40_404.0, 50_505.0, 600)})
    found = [finding("drift.input", "warn", name, observed=0.2) for name in ("city", "income")]
    told = overview(run(1, "published", *found), **profiled(secret, outputs, secret, outputs))

    hidden, shown = write_page(told), write_page(told, show_values=True)

    for value in ("Atlantis", "Utopia", "gold", "zinc", "71,234", "40,404", "71234", "50505"):
        assert value not in hidden
    assert "category 1" in hidden
    assert "Atlantis" in shown
    assert "71,234 to" in shown


def test_lists_and_texts_that_are_predicted_are_drawn() -> None:
    table = pa.table({"a": np.linspace(0, 1, 600)})
    outputs = pa.table({"items": [["x"] * (n % 4) for n in range(600)], "label": ["yes", "no"] * 300})
    page = Page(write_page(overview(run(1), **profiled(table, outputs, table, outputs))))

    assert "lengths of lists; 600 held-out rows of training, 600 of run 1 (full)" in page.text
    assert "category 2" in page.text


def test_charts_become_pictures_that_need_no_page_around_them() -> None:
    drawn = draw_pictures(overview(run(1), publications=(publication(1),)))

    assert [picture.title for picture in drawn] == ["How old the predictions were"]
    kind, _, encoded = drawn[0].url.partition(",")
    assert kind == "data:image/svg+xml;base64"
    image = base64.b64decode(encoded)
    assert Tree.fromstring(image).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"--accent" in image
    assert len(drawn[0].url) < 20_000


def test_sixty_features_and_thirty_runs_stay_below_a_megabyte() -> None:
    names = [f"feature_{n:02}" for n in range(60)]
    table = pa.table({name: np.sin(np.arange(600) * (n + 1)) for n, name in enumerate(names)})
    outputs = pa.table({"p": np.linspace(0, 1, 600)})
    runs = [
        run(n, "published", *(finding("drift.input", "warn", name, observed=0.2, reason="x" * 150) for name in names))
        for n in range(1, 31)
    ]
    told = overview(*runs, publications=tuple(publication(n) for n in range(1, 31)), now=AT + 31 * 24 * HOUR)
    text = write_page(replace(told, **profiled(table, outputs, table, outputs)))

    assert len(text) < 1_000_000
    assert "48 more features" in Page(text).text
    assert all(name in text for name in names)
