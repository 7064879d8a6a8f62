"""Lineage: what a catalogue is told of real runs, and that none of them depends on it."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import attr
import pytest
from openlineage.client import event_v2, facet_v2
from sqlalchemy.engine import make_url

import flows.score
from tasks import lineage
from tasks.errors import PrescoreError, UsageError
from tasks.runs import Status
from tasks.settings import read_settings
from tests.factories import PIPELINE_TOML, World, make_model, make_pipeline, make_world

# Made once and used by all: one worker.
pytestmark = pytest.mark.xdist_group("lineage")

TOML = (
    PIPELINE_TOML
    + """
[[source]]
name = "public.items"
watermark = "updated_at"
fail_after = "30d"
"""
)
FEATURES = """
SELECT i.id, b.as_of, i.a, i.b, i.c, s.size
FROM batch AS b
JOIN public.known_items AS i ON i.id = b.id
LEFT JOIN public.sizes AS s ON s.c = i.c
"""


class Catalogue(BaseHTTPRequestHandler):
    """Keeps the events that it is sent, and answers as it is told to."""

    events: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []
    answer: ClassVar[int] = 201
    #: Set: answers wait until it is cleared.
    deaf: ClassVar[threading.Event] = threading.Event()
    heard: ClassVar[threading.Event] = threading.Event()

    def do_POST(self) -> None:
        """Take an event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/api/v1/lineage"
        if self.deaf.is_set():
            self.heard.wait(30)
        self.events.append(json.loads(body))
        self.keys.append(self.headers.get("Authorization"))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a catalogue."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Catalogue)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Catalogue.heard.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    Catalogue.events.clear()
    Catalogue.keys.clear()
    Catalogue.answer = 201
    Catalogue.deaf.clear()


@pytest.fixture(scope="module")
def world(module_database_url: str, tmp_path_factory: pytest.TempPathFactory, address: str) -> World:
    """A pipeline whose features come from a view over items, and from sizes."""
    world = make_world(module_database_url, tmp_path_factory.mktemp("pipelines"), rows=600)
    world.execute("CREATE VIEW public.known_items AS SELECT * FROM public.items WHERE id > 0")
    world.execute("CREATE TABLE public.sizes AS SELECT c, 1.5::float8 AS size FROM unnest(ARRAY['x', 'y']) AS c")
    make_model(world, make_pipeline(world, toml=TOML, features=FEATURES))
    return World(url=world.url, settings=replace(world.settings, lineage_url=address))


def names(world: World) -> tuple[str, str]:
    """Return namespace and database as OpenLineage has them."""
    url = make_url(world.url)
    return f"postgres://{url.host}:{url.port}", str(url.database)


def require_valid(event: dict[str, Any]) -> None:
    """Make each part of an event again with the classes of the client, which check what they are given."""
    parts = {
        "jobType": facet_v2.job_type_job.JobTypeJobFacet,
        "documentation": facet_v2.documentation_job.DocumentationJobFacet,
        "nominalTime": facet_v2.nominal_time_run.NominalTimeRunFacet,
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet,
        "errorMessage": facet_v2.error_message_run.ErrorMessageRunFacet,
        "tags": facet_v2.tags_run.TagsRunFacet,
        "test": facet_v2.test_run.TestRunFacet,
        "datasetType": facet_v2.dataset_type_dataset.DatasetTypeDatasetFacet,
        "version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet,
        "schema": facet_v2.schema_dataset.SchemaDatasetFacet,
        "dataSource": facet_v2.datasource_dataset.DatasourceDatasetFacet,
        "dataQualityAssertions": facet_v2.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet,
        "outputStatistics": facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet,
    }
    event_v2.Run(runId=event["run"]["runId"])
    assert event["schemaURL"].startswith("https://openlineage.io/spec/")
    datasets = [*event["inputs"], *event["outputs"]]
    holders = [event["run"]["facets"], event["job"]["facets"]]
    holders += [each.get(kind) or {} for each in datasets for kind in ("facets", "inputFacets", "outputFacets")]
    for holder in holders:
        for name, facet in holder.items():
            kind = parts[name]
            fields = {field.name for field in attr.fields(kind)}
            given = {key: value for key, value in facet.items() if not key.startswith("_")}
            assert set(given) <= fields
            made = kind(**given, producer=facet["_producer"])
            assert facet["_schemaURL"] == made._schemaURL


def told(kind: str) -> dict[str, Any]:
    """Return the one event of a kind."""
    (event,) = [event for event in Catalogue.events if event["eventType"] == kind]
    return event


def test_a_run_that_publishes_tells_what_it_read_with_which_model_and_what_it_made(world: World) -> None:
    make_pipeline(world, toml=TOML, features=FEATURES)
    summary = world.score(full=True)

    namespace, database = names(world)
    assert summary.status is Status.PUBLISHED
    assert [event["eventType"] for event in Catalogue.events] == ["START", "COMPLETE"]
    for event in Catalogue.events:
        require_valid(event)
    start, complete = told("START"), told("COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert (complete["job"]["namespace"], complete["job"]["name"]) == ("prescore", "items")
    assert complete["job"]["facets"]["documentation"]["description"] == "Items of a test."
    inputs = {each["name"]: each for each in complete["inputs"]}
    assert {each["namespace"] for each in complete["inputs"]} == {namespace}
    # Tables, not the view that they are behind.
    assert set(inputs) == {
        f"{database}.public.items",
        f"{database}.public.sizes",
        f"{database}.prescore.models.items",
    }
    assertions = inputs[f"{database}.public.items"]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {(each["assertion"], each["success"]) for each in assertions} >= {("source.age", True)}
    model = inputs[f"{database}.prescore.models.items"]
    assert model["facets"]["version"]["datasetVersion"] == "1"
    assert model["facets"]["datasetType"]["datasetType"] == "MODEL"
    (output,) = complete["outputs"]
    assert (output["namespace"], output["name"]) == (namespace, f"{database}.predictions.items")
    fields = [(field["name"], field["type"]) for field in output["facets"]["schema"]["fields"]]
    assert fields == [("id", "bigint"), ("p", "double precision"), ("label", "bigint")]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 600
    assert output["facets"]["version"]["datasetVersion"] == str(summary.generation_id)
    facets = complete["run"]["facets"]
    assert summary.as_of is not None
    assert facets["nominalTime"]["nominalStartTime"] == summary.as_of.isoformat()
    tags = {tag["key"]: tag["value"] for tag in facets["tags"]["tags"]}
    assert tags.items() >= {"run_id": str(summary.run_id), "mode": "full", "trigger": "manual"}.items()
    assert {test["type"] for test in facets["test"]["tests"]} == {finding.check_id for finding in summary.findings}
    assert not any(str(make_url(world.url).password) in json.dumps(event) for event in Catalogue.events)


def test_runs_that_publish_nothing_say_why_and_name_no_output(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FEATURES.replace("i.a,", "i.a / CASE WHEN i.id = 599 THEN 0 ELSE 1 END AS a,")
    make_pipeline(world, toml=TOML, features=broken)
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-of-ours")
    # A run of earlier died without a word.
    world.execute("UPDATE prescore.runs SET status = 'running' WHERE run_id = (SELECT min(run_id) FROM prescore.runs)")
    dead = world.rows("SELECT min(run_id) FROM prescore.runs")[0][0]
    with pytest.raises(PrescoreError, match="division by zero"):
        world.score(full=True)
    world.execute(f"UPDATE prescore.runs SET status = 'published' WHERE run_id = {dead}")
    make_pipeline(world, toml=TOML, features=FEATURES)

    for event in Catalogue.events:
        require_valid(event)
    assert [event["eventType"] for event in Catalogue.events] == ["ABORT", "START", "FAIL"]
    assert told("ABORT")["run"]["runId"] == lineage.run_uuid(*names(world), dead)
    fail = told("FAIL")
    assert fail["run"]["runId"] == told("START")["run"]["runId"] != told("ABORT")["run"]["runId"]
    assert "division by zero" in fail["run"]["facets"]["errorMessage"]["message"]
    assert fail["outputs"] == []
    assert f"{names(world)[1]}.public.items" in {each["name"] for each in fail["inputs"]}
    assert set(Catalogue.keys) == {"Bearer key-of-ours"}


def test_a_run_that_somebody_ends_is_aborted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(flows.score, "check_guards", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.score()

    assert [event["eventType"] for event in Catalogue.events] == ["START", "ABORT"]
    require_valid(told("ABORT"))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("down", "ConnectionError"),
        ("deaf", "it takes longer than 0 s"),
        pytest.param("failing", "it answers 500", marks=pytest.mark.slow),
        pytest.param("missing", "its client is not installed", marks=pytest.mark.slow),
    ],
)
def test_whatever_the_catalogue_does_the_run_publishes_and_it_is_told_once(
    world: World, how: str, says: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tasks.lineage")
    served = world
    if how == "down":
        served = World(
            url=world.url, settings=replace(world.settings, lineage_url="http://me:hush-7@127.0.0.1:1/?token=hush-8")
        )
    elif how == "failing":
        Catalogue.answer = 500
    elif how == "deaf":
        monkeypatch.setattr(lineage, "LAST_WORD", 0.2)
        Catalogue.deaf.set()
    else:
        monkeypatch.setitem(sys.modules, "openlineage.client", None)

    summary = served.score()

    Catalogue.heard.set()
    warnings = [record.getMessage() for record in caplog.records if record.name == "tasks.lineage"]
    assert summary.status is Status.PUBLISHED
    assert len(warnings) == 1
    assert warnings[0].startswith("lineage could not be told to 127.0.0.1: ")
    assert says in warnings[0]
    assert "hush" not in caplog.text
    Catalogue.heard.clear()


def test_an_address_that_nothing_can_be_posted_to_is_refused_without_quoting_it() -> None:
    for wrong in ("ftp://hush", "hush", "http://", "http://["):
        with pytest.raises(UsageError, match="PRESCORE_OPENLINEAGE is no address") as refused:
            read_settings({"PRESCORE_OPENLINEAGE": wrong})
        assert "hush" not in str(refused.value)
    assert read_settings({"PRESCORE_OPENLINEAGE": "https://catalogue.example.com"}).lineage_url is not None
