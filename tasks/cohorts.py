"""Cohorts: predictions that were kept, joined with the labels that have ripened since.

Only matured predictions are judged. Some labels come early and others late (an order proves at once that a customer
stays; that one leaves takes the full 30 days), so a cohort that is still ripening holds other rows, and other shares,
than it will: on two million simulated rows an AUC of 0.815 read 0.753, and a base rate of 0.33 read 0.17.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.columns import Column
from tasks.database import literal, load_query, quote
from tasks.errors import PrescoreError
from tasks.features import AS_OF, LABEL
from tasks.outputs import spellings

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.declaration import Output
    from tasks.pipeline import Pipeline
    from tasks.transport import Session

PREDICTION = "prediction"
#: Kept predictions that are read at most, a fixed share of the entities where there are more: 100 MB for a short key.
MOST_SAMPLES = 500_000

#: How long labels.sql may take within a run.
LABELS_TIMEOUT = timedelta(minutes=5)


class SeveralLabels(PrescoreError):
    """An entity has several labels at one instant."""

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"{origin} gives several labels for one key and as_of, expected one. Predictions were not judged; what was "
            "published is still served. A ranked list has no metric of [performance]; other labels have to be unique."
        )


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Matured predictions of one model version with their labels, one row for each key and as_of of labels.sql."""

    #: Labels of instants after ``since`` and up to ``until`` are in it.
    since: datetime
    until: datetime
    #: Entities with a kept prediction that has matured, and how many of them have a label.
    predicted: int
    labelled: int
    #: When this version began to predict; None where it never did.
    began: datetime | None
    #: The labels, shape ``(n,)``: bool, int64, float64, or text as object.
    labels: NDArray[Any] = field(repr=False)
    #: What had been predicted, shape ``(n,)``: float64, or text for classes.
    predictions: NDArray[Any] = field(repr=False)
    #: Which instant each row was asked for, shape ``(n,)``, counted from 0.
    instants: NDArray[np.int64] = field(repr=False)

    @property
    def coverage(self) -> float:
        """Share of the matured predictions whose label is known."""
        return self.labelled / self.predicted if self.predicted else 0.0

    def positive(self, class_: str) -> NDArray[np.bool_]:
        """Return which labels are a class; classes are compared as text, as in the declaration."""
        return _is_class(self.labels, class_)

    def right(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return an array of True, and whether each predicted class is the label."""
        distinct = {label: spellings(label) for label in set(self.labels.tolist())}
        pairs = zip(self.labels.tolist(), self.predictions.tolist(), strict=True)
        found = np.array([guess in distinct[label] for label, guess in pairs], dtype=bool)
        return np.ones(len(found), dtype=bool), found


def _is_class(values: NDArray[Any], class_: str) -> NDArray[np.bool_]:
    wanted = [value for value in set(values.tolist()) if class_ in spellings(value)]
    return np.isin(values, np.array(wanted, dtype=values.dtype)) if wanted else np.zeros(len(values), dtype=bool)


def read_cohort(
    session: Session,
    sources: Session,
    pipeline: Pipeline,
    key: Sequence[Column],
    label: Column,
    output: Output,
    *,
    classes: bool,
    model_version: int,
    as_of: datetime,
    grace: timedelta,
) -> Cohort:
    """Read the matured predictions of a model version and join them with what labels.sql knows at ``as_of``.

    Parameters
    ----------
    session
        Reads in the snapshot of the run.
    sources
        Reads labels.sql: the same session, or that of the sources' server.
    label
        The label column of labels.sql.
    output
        The declared output that is judged.
    classes
        Whether it holds classes, which are compared as text, or numbers.
    as_of
        That of the run.
    grace
        How much later than an instant of labels.sql the run meant for it may have begun.

    Raises
    ------
    SeveralLabels
        When labels.sql has more than one row for a key and as_of.
    StatementFailed
        When labels.sql fails, or takes longer than ``LABELS_TIMEOUT``.
    """
    performance = pipeline.performance
    assert performance.maturity is not None
    assert pipeline.training is not None
    assert pipeline.training.labels is not None
    until = as_of - performance.maturity
    since = until - performance.window
    sources.execute(f"SET LOCAL statement_timeout = {round(LABELS_TIMEOUT.total_seconds() * 1000)}")
    kept = _read_samples(
        session, pipeline, key, output, classes, model_version, since - pipeline.serve.stale_after, until + grace
    )
    identity = [column.name for column in key]
    matured = kept[(kept[AS_OF.name] > since) & (kept[AS_OF.name] <= until)]
    # Without a prediction to judge nobody asks: labels.sql is the most expensive query of a pipeline.
    known = _read_labels(sources, pipeline, key, label, kept, since, until, as_of) if len(kept) else kept
    if len(kept) and known.duplicated([*identity, AS_OF.name]).any():
        raise SeveralLabels(f"{pipeline.name}/{pipeline.training.labels.origin}")
    matched = match(known, kept, identity, pipeline.serve.stale_after, grace)
    labelled = matched[identity].drop_duplicates()
    predicted = _distinct(matured[identity], labelled)
    return Cohort(
        since=since,
        until=until,
        predicted=len(predicted),
        labelled=len(labelled),
        began=_began(session, pipeline, model_version),
        labels=matched[LABEL].to_numpy(),
        predictions=matched[PREDICTION].to_numpy(),
        instants=np.unique(matched[AS_OF.name].to_numpy(), return_inverse=True)[1].astype(np.int64),
    )


def match(
    labels: pd.DataFrame, samples: pd.DataFrame, identity: list[str], stale_after: timedelta, grace: timedelta
) -> pd.DataFrame:
    """Return each label beside the prediction that a reader would have been given at its as_of.

    That is the latest one of the key made at or before as_of and not older than ``stale_after``. Where there is none,
    it is the first one made within ``grace`` after it: labels.sql names the tick of the schedule (03:00), and a run
    begins some seconds later. No prediction is later than that, since it could have seen what it was to foretell;
    half a period, say, would let a weekly run know three days of the month that it is judged on.
    """
    import pandas as pd

    if labels.empty or samples.empty:
        return samples.iloc[:0].assign(**{LABEL: []})
    labels = labels.sort_values(AS_OF.name, kind="stable").reset_index(drop=True)
    samples = samples.sort_values(AS_OF.name, kind="stable").reset_index(drop=True)

    def nearest(wanted: pd.DataFrame, direction: Literal["backward", "forward"], tolerance: timedelta) -> pd.DataFrame:
        return pd.merge_asof(
            wanted,
            samples.assign(found=True),
            on=AS_OF.name,
            by=identity,
            direction=direction,
            tolerance=pd.Timedelta(tolerance),
        )

    before = nearest(labels, "backward", stale_after)
    found = before["found"].notna().to_numpy()
    after = nearest(labels[~found], "forward", grace)
    both = pd.concat([before[found], after[after["found"].notna()]], ignore_index=True)
    return both.drop(columns="found")


def _distinct(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([first, second], ignore_index=True).drop_duplicates()


def _read_samples(
    session: Session,
    pipeline: Pipeline,
    key: Sequence[Column],
    output: Output,
    classes: bool,
    model_version: int,
    after: datetime,
    until: datetime,
) -> pd.DataFrame:
    of_version = {
        "pipeline": literal(pipeline.name),
        "model_version": str(model_version),
        "after": literal(after),
        "until": literal(until),
    }
    counted = session.table(load_query("count_prediction_samples", of_version), "Counting the kept predictions")
    per_mille = min(1000, 1000 * MOST_SAMPLES // max(1, counted.column("samples")[0].as_py()))
    read = [f"{c.read(f'(s.key ->> {literal(c.name)})::{c.postgres_type}')} AS {quote(c.name)}" for c in key]
    value = f"(s.predictions ->> {literal(output.name)})"
    statement = load_query(
        "read_prediction_samples",
        {
            **of_version,
            "key_columns": ", ".join(read),
            "prediction": value if classes else f"{value}::double precision",
            "per_mille": str(per_mille),
        },
    )
    return _frame(session.table(statement, "Reading the kept predictions"))


def _began(session: Session, pipeline: Pipeline, model_version: int) -> datetime | None:
    """Return the earliest instant that a model version predicted for; None where there is none."""
    fragments = {"pipeline": literal(pipeline.name), "model_version": str(model_version)}
    found = session.table(load_query("find_first_generation", fragments), "Looking for the first predictions")
    at: datetime | None = found.column(AS_OF.name)[0].as_py()
    return at


def _read_labels(
    sources: Session,
    pipeline: Pipeline,
    key: Sequence[Column],
    label: Column,
    kept: pd.DataFrame,
    since: datetime,
    until: datetime,
    as_of: datetime,
) -> pd.DataFrame:
    """Return the labels of entities whose predictions were kept; those of all others are dropped batch by batch."""
    assert pipeline.training is not None
    assert pipeline.training.labels is not None
    query = pipeline.training.labels
    read = [f"{c.read(f'labels.{quote(c.name)}::{c.postgres_type}')} AS {quote(c.name)}" for c in key]
    read += ["labels.as_of::timestamptz AS as_of", f"{label.read('labels.label')} AS label"]
    statement = load_query(
        "read_matured_labels",
        {
            "as_of": literal(as_of),
            "after": literal(since),
            "until": literal(until),
            "label_columns": ", ".join(read),
            "label_query": query.text,
        },
    )
    first = key[0]
    wanted = pa.array(kept[first.name].unique(), type=first.arrow_type)
    columns = (*key, AS_OF, Column(name=LABEL, postgres_type=label.postgres_type))
    parts = []
    with sources.stream(statement, query.origin) as batches:
        for batch in batches:
            parts.append(batch.filter(pc.is_in(batch.column(first.name), value_set=wanted)))
    schema = pa.schema([pa.field(column.name, column.arrow_type) for column in columns])
    return _frame(pa.Table.from_batches(parts) if parts else schema.empty_table())


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows with as_of in microseconds, so that instants of two queries compare; a label of NaN is none."""
    at = rows.column_names.index(AS_OF.name)
    frame: pd.DataFrame = rows.set_column(at, AS_OF.name, rows.column(at).cast(AS_OF.arrow_type)).to_pandas()
    return frame.dropna()


__all__ = ["Cohort", "SeveralLabels", "match", "read_cohort"]
