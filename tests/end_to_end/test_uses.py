"""Recommendations and segments, trained on shops that nobody chose: other customers, other sizes, other weeks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from flows.train import train
from tasks import registry
from tasks.bundle import preprocessed
from tasks.database import clock, connect
from tasks.demo import load_demo, open_shop, pipeline_folder
from tasks.features import training_frame
from tasks.pipeline import find_pipeline
from tasks.settings import Settings

DAY = timedelta(days=1)


# Other customers and other sizes: the draws of chance() are shifted, so that nobody's taste is that of the demo.
@pytest.mark.parametrize(("customers", "shift"), [(250, 1000), (900, 3000)])
def test_recommendations_beat_what_is_most_popular_in_any_shop(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, customers: int, shift: int
) -> None:
    def shifted(name: str) -> str:
        return load_demo(name).replace("hashint8extended(key, draw)", f"hashint8extended(key, draw + {shift})")

    monkeypatch.setattr("tasks.demo.load_demo", shifted)
    with connect(database_url) as connection:
        now = clock(connection)
    open_shop(database_url, customers=customers, today=now)
    settings = Settings(database_url=database_url, pipelines_dir=pipeline_folder().parent, data_dir=tmp_path)
    trained = train(settings, "recommendations", as_of=now)
    model, popular = trained.metrics["recall@10"], trained.baseline["recall@10"]
    assert trained.promoted
    assert model is not None
    assert popular is not None
    assert model > 1.5 * popular > 0
    # The same history gives the same model, although several labels belong to one customer and instant.
    assert train(settings, "recommendations", as_of=now).known_before


def test_segments_keep_their_numbers_when_they_are_trained_again(database_url: str, tmp_path: Path) -> None:
    with connect(database_url) as connection:
        now = clock(connection)
    open_shop(database_url, customers=2_000, today=now)
    settings = Settings(database_url=database_url, pipelines_dir=pipeline_folder().parent, data_dir=tmp_path)
    pipeline = find_pipeline(settings, "segments")
    for weeks in (4, 0):
        train(settings, "segments", as_of=now - weeks * 7 * DAY)
    with connect(database_url) as connection:
        before, after = (registry.load_bundle(connection, "segments", version, pipeline) for version in (1, 2))
    frame = preprocessed(training_frame(database_url, pipeline, now), after.features, pipeline.preprocess_function())
    segments = [bundle.score(frame)["segment"].to_numpy() for bundle in (before, after)]
    assert set(segments[0]) == set(segments[1]) == {0, 1, 2, 3}
    assert (segments[0] == segments[1]).mean() > 0.9
