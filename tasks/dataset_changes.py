"""Changes of a dataset: what was read of it for each publication, and which of its rows are new since.

How far a publication had read is told in the dataset's own terms (its newest ``updated_at`` or ``as_of``), never by our
clock: rows are exported long after they were written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from tasks import dataset_rows
from tasks.columns import Column, key_arrays
from tasks.database import load_query, one, quote
from tasks.datasets import Dataset
from tasks.features import FeatureContract
from tasks.pipeline import Pipeline, UserQuery
from tasks.population import FULL_ABOVE, Served

# So many changed rows are named one by one, whatever share of the entities they are.
ALWAYS_NAMED = 10_000


@dataclass(frozen=True, kw_only=True)
class DatasetChanges:
    """What a changed dataset means for an incremental run."""

    #: Why everything has to be scored; empty when the changed entities are known.
    because: str
    #: The pipeline, whose changes query names these entities too.
    pipeline: Pipeline


def note(connection: sa.Connection, pipeline: Pipeline, dataset: Dataset, generation_id: int, as_of: datetime) -> None:
    """Note what a run has read, before it publishes: it counts once head names the generation."""
    newest = None if dataset.declared.changes_by is None else dataset_rows.newest(dataset, as_of)
    values = {
        "pipeline": pipeline.name,
        "generation_id": generation_id,
        "digest": dataset.digest,
        "newest": newest,
        "modified_at": dataset.modified,
        "rows": dataset.rows,
        "outside": dataset.counts.outside,
    }
    connection.execute(sa.text(load_query("note_dataset")), values)
    connection.commit()


def since_published(
    connection: sa.Connection,
    pipeline: Pipeline,
    contract: FeatureContract,
    served: Served,
    served_rows: int,
    as_of: datetime,
) -> DatasetChanges:
    """Find out what an incremental run has to score because the dataset is not what the served publication has read.

    Raises
    ------
    DatasetChanged, DatasetRefused
        As reading does.
    """
    dataset = contract.dataset
    if dataset is None:
        return DatasetChanges(because="", pipeline=pipeline)
    declared = dataset.declared
    before = one(connection, "find_dataset", pipeline=pipeline.name, generation_id=served.generation_id)
    connection.rollback()
    unchanged = before is not None and before.digest == dataset.digest
    if unchanged and declared.as_of is None:
        return DatasetChanges(because="", pipeline=pipeline)
    if declared.changes_by is None:
        # A changes query of the pipeline's own speaks for the dataset, too.
        because = (
            "" if pipeline.features.changes is not None else "the dataset changed, and nothing says which of its rows"
        )
        return DatasetChanges(because=because, pipeline=pipeline)
    if before is None or before.newest is None:
        return DatasetChanges(because="nobody knows how far the dataset was read", pipeline=pipeline)
    found = dataset_rows.changed_keys(
        dataset,
        contract.key,
        before.newest if unchanged else before.newest - declared.late_by,
        served.watermark - declared.late_by,
        as_of,
        at_since=not unchanged,
        most=max(ALWAYS_NAMED, int(FULL_ABOVE * served_rows)),
    )
    if found is None:
        return DatasetChanges(because="most of the dataset changed", pipeline=pipeline)
    return DatasetChanges(because="", pipeline=_naming(pipeline, contract.key, found))


def _naming(pipeline: Pipeline, key: tuple[Column, ...], changed: pa.Table) -> Pipeline:
    """Return a pipeline whose changes query names some keys besides its own; they travel as literals."""
    for column in key:
        if pa.types.is_integer(column.arrow_type):  # what a key of the population cannot be is nobody's
            limits = np.iinfo(column.arrow_type.to_pandas_dtype())
            values = changed.column(column.name)
            changed = changed.filter(
                pc.and_(pc.greater_equal(values, int(limits.min)), pc.less_equal(values, int(limits.max)))
            )
    names = ", ".join(quote(column.name) for column in key)
    fragments = {"key_names": names, "key_arrays": key_arrays(changed, key)}
    own = pipeline.features.changes
    if own is None:
        text = load_query("name_changed_keys", fragments)
    else:
        text = load_query("add_changed_keys", {**fragments, "changes_query": own.text})
    query = UserQuery(text=text, origin=pipeline.features.origin if own is None else own.origin, line=1)
    return replace(pipeline, features=pipeline.features.model_copy(update={"changes": query}))
