"""What [performance] asks for, and labels beside predictions of every type."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tasks.checks.performance import Asked, asked_of
from tasks.cohorts import Cohort
from tasks.errors import PipelineInvalid
from tasks.pipeline import load_pipeline

TOML = """
[entity]
key = ["id"]
query = "SELECT 1::bigint AS id"
[features]
query = "SELECT b.id, b.as_of, 1.0::float8 AS x FROM batch AS b"
[predictions]
{outputs}
[training]
labels = "SELECT 1::bigint AS id, now() AS as_of, 1 AS label"
[performance]
{performance}
"""
P = 'p = { method = "predict_proba", class = "1" }'
Q = 'q = { method = "predict_proba", class = "2" }'
LABEL = 'label = { method = "predict" }'


def asked(folder: Path, outputs: list[str], performance: str) -> Asked | str:
    (folder / "things").mkdir()
    text = TOML.format(outputs="\n".join(outputs), performance=performance)
    (folder / "things" / "pipeline.toml").write_text(text)
    return asked_of(load_pipeline(folder / "things"))


@pytest.mark.parametrize(
    ("outputs", "metric", "output"),
    [
        ([P, LABEL], "auc", "p"),
        ([P, LABEL], "accuracy", "label"),
        ([P], "accuracy", "p"),
        ([P, LABEL], "f1", "p"),
        ([LABEL], "rmse", "label"),
    ],
)
def test_the_one_output_that_a_metric_fits_is_judged(
    tmp_path: Path, outputs: list[str], metric: str, output: str
) -> None:
    found = asked(tmp_path, outputs, f'metric = "{metric}"')
    assert isinstance(found, Asked)
    assert (found.metric.name, found.output.name) == (metric, output)


def test_of_several_outputs_one_has_to_be_named(tmp_path: Path) -> None:
    found = asked(tmp_path, [P, Q], 'metric = "auc"')
    assert found == "auc needs one output that it fits (p, q do): name it as [performance] output"


def test_the_named_output_is_judged_and_has_to_exist(tmp_path: Path) -> None:
    found = asked(tmp_path, [P, Q], 'metric = "auc"\noutput = "q"')
    assert isinstance(found, Asked)
    assert found.output.name == "q"
    (tmp_path / "other").mkdir()
    with pytest.raises(PipelineInvalid, match=r'\[performance\] output: "z" is none of the outputs .*: p, q'):
        asked(tmp_path / "other", [P, Q], 'metric = "auc"\noutput = "z"')


def test_without_a_metric_the_sentence_says_what_to_declare(tmp_path: Path) -> None:
    found = asked(tmp_path, [P], "sample = 0.1")
    assert isinstance(found, str)
    assert 'metric = "auc" and maturity = "30d"' in found


def cohort(labels: np.ndarray, predictions: np.ndarray) -> Cohort:  # type: ignore[type-arg]
    instant = datetime(2026, 1, 1, tzinfo=UTC)
    return Cohort(
        since=instant,
        until=instant,
        predicted=8,
        labelled=len(labels),
        began=instant,
        labels=labels,
        predictions=predictions,
        instants=np.zeros(len(labels), dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (np.array([1, 0, 1, 2]), ["1", "1", "1", "2"]),
        (np.array([1.0, 0.0, 1.0, 2.5]), ["1", "1", "1", "2.5"]),
        (np.array([True, False, True, False]), ["true", "true", "true", "false"]),
        (np.array(["b", "a", "b", "c"], dtype=object), ["b", "b", "b", "c"]),
    ],
)
def test_classes_are_compared_as_the_declaration_spells_them(labels: np.ndarray, texts: list[str]) -> None:  # type: ignore[type-arg]
    found = cohort(labels, np.array(texts, dtype=object))
    _, right = found.right()
    assert right.tolist() == [True, False, True, True]
    assert found.positive(texts[0]).tolist() == [True, False, True, False]
    assert not found.positive("nothing").any()
    assert found.coverage == 0.5
