"""Training: labelled rows split by time, a model fitted on the earlier part and judged on the later one (evaluation.py).

The judged model is the registered one: it is not fitted again on all rows, so that its metrics are its own.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks import registry
from tasks.bundle import AS_OF, preprocessed, running_environment
from tasks.columns import Column
from tasks.database import connect
from tasks.errors import PickleNotTrusted, RegistrationRefused, TrainingRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.bundle import Bundle
    from tasks.features import FeatureContract
    from tasks.pipeline import Pipeline
    from tasks.registry import ModelVersion, Promotion
    from tasks.settings import Settings

logger = logging.getLogger(__name__)

LABEL = "label"

#: Columns whose name a message lists at most.
_SHOWN = 10


class SplitBy(StrEnum):
    """What separates the rows that a model is fitted on from those it is judged on."""

    #: The latest instants are held out: what scoring will meet.
    TIME = "time"
    #: labels.sql has one instant only; a fixed share of the keys is held out.
    KEY = "key"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training rows in two parts."""

    #: Rows to fit on: key, as_of, label (if any) and features, in the order of training_frame.
    fitted: pa.Table
    #: Rows to judge on, none of which was fitted on.
    held_out: pa.Table
    by: SplitBy
    #: Rows without a label, left out of both.
    unlabelled: int

    @property
    def labelled(self) -> bool:
        """Whether there is anything to predict; without a label the estimator is unsupervised."""
        return LABEL in self.fitted.column_names

    @property
    def fitted_until(self) -> datetime:
        """Latest as_of that the model is fitted on; the labels of that instant may have ripened later."""
        return _instant(pc.max(self.fitted.column(AS_OF.name)))

    @property
    def held_out_from(self) -> datetime:
        """Earliest as_of that the model is judged on."""
        return _instant(pc.min(self.held_out.column(AS_OF.name)))


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a training run did, for people and programs."""

    pipeline: str
    model: str
    version: int
    digest: str
    as_of: datetime
    #: Rows that the model was fitted on, and judged on.
    rows_fitted: int
    rows_held_out: int
    #: Rows of labels.sql whose label is NULL.
    rows_unlabelled: int
    split_by: SplitBy
    held_out_from: datetime
    #: Latest as_of among the rows fitted on; model age counts from here.
    train_data_until: datetime
    #: On held-out rows: metric -> value, None where it is not defined.
    metrics: dict[str, float | None]
    #: The same of the naive baseline.
    baseline: dict[str, float | None]
    #: What the baseline predicts, in words.
    baseline_is: str
    #: The version was there already: the same data gave the same model.
    known_before: bool
    promoted: bool
    #: What the alias names now and why, in words.
    promotion: str

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it; times in UTC."""
        values = dict(self.__dict__)
        for name, value in values.items():
            if isinstance(value, datetime):
                values[name] = value.astimezone(UTC).isoformat()
        return values


# Splitting -------------------------------------------------------------------------------------------------------


def split_rows(rows: pa.Table, pipeline: str, key: tuple[Column, ...], holdout: float) -> Split:
    """Hold out the latest share of instants; where there is only one instant, the same share of keys.

    Parameters
    ----------
    rows
        What ``features.training_frame`` returns.
    pipeline
        Its name, for messages.
    key
        Key columns.
    holdout
        Share of the distinct instants, at least one, or of the keys.

    Raises
    ------
    TrainingRefused
        When either part would be empty.
    """
    unlabelled = 0
    if LABEL in rows.column_names:
        missing = pc.is_null(rows.column(LABEL), nan_is_null=True)
        unlabelled = int(pc.sum(pc.cast(missing, pa.int64())).as_py() or 0)
        rows = rows.filter(pc.invert(missing))
    if rows.num_rows < 2:
        raise TrainingRefused(
            pipeline,
            f"labels.sql and features.sql give {rows.num_rows} rows with a label ({unlabelled} have a NULL label)",
            "Widen labels.sql, or pass an --as-of at which more labels are known.",
        )
    held, by = _held_out(rows, key, holdout)
    parts = rows.filter(pa.array(~held)), rows.filter(pa.array(held))
    if not parts[0].num_rows or not parts[1].num_rows:
        raise TrainingRefused(
            pipeline,
            f"of {rows.num_rows} rows, {parts[0].num_rows} are left to fit on and {parts[1].num_rows} to judge on",
            "Let labels.sql return more instants or keys, or set [training] holdout.",
        )
    return Split(fitted=parts[0], held_out=parts[1], by=by, unlabelled=unlabelled)


def _held_out(rows: pa.Table, key: tuple[Column, ...], holdout: float) -> tuple[NDArray[np.bool_], SplitBy]:
    instants = rows.column(AS_OF.name).combine_chunks()
    distinct = np.sort(pc.unique(instants).cast(pa.int64()).to_numpy(zero_copy_only=False))
    if len(distinct) > 1:
        first = distinct[-max(1, round(holdout * len(distinct)))]
        return instants.cast(pa.int64()).to_numpy(zero_copy_only=False) >= first, SplitBy.TIME
    import pandas as pd

    # The same keys are held out in every run: pandas hashes values alone, with a fixed seed.
    texts = rows.select([column.name for column in key]).cast(
        pa.schema([pa.field(column.name, pa.string()) for column in key])
    )
    hashed = pd.util.hash_pandas_object(texts.to_pandas(), index=False).to_numpy()
    return (hashed % 10_000) < holdout * 10_000, SplitBy.KEY


def one_row_each(rows: pa.Table, key: Sequence[Column]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return the first row of each (key, as_of), and for every given row which of these it belongs to.

    labels.sql may give several labels for one entity at one instant: all that it bought next.
    """
    names = [*(column.name for column in key), AS_OF.name]
    identity = rows.select(names).to_pandas()
    owners = identity.groupby(names, sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64)
    return rows.filter(pa.array(~identity.duplicated().to_numpy())), owners


def label_values(rows: pa.Table) -> NDArray[Any]:
    """Return the labels as a model learns them, shape ``(n,)``: bool, int64, float64, or text as object."""
    values = rows.column(LABEL).combine_chunks()
    if pa.types.is_boolean(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_integer(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
    if pa.types.is_floating(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.asarray(values.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)


# Fitting ---------------------------------------------------------------------------------------------------------


def fit_model(pipeline: Pipeline, contract: FeatureContract, parts: Split) -> Any:
    """Return the pipeline's estimator fitted on the earlier part.

    Raises
    ------
    TrainingRefused
        When the pipeline names no estimator, the labels are all the same, or ``fit`` raises (the cause is chained).
    """
    build = pipeline.estimator_function()
    if build is None:
        raise TrainingRefused(
            pipeline.name,
            "[training] estimator is not declared",
            'Write estimator = "model.py:build_model", a function that returns an unfitted estimator.',
        )
    estimator = build()
    frame = preprocessed(parts.fitted, contract.features, pipeline.preprocess_function())
    labels = label_values(parts.fitted) if parts.labelled else None
    if labels is not None and is_classifier(estimator) and len(set(labels.tolist())) < 2:
        raise TrainingRefused(
            pipeline.name,
            f"all {len(frame)} labels to fit on are the same",
            "Widen labels.sql so that every class occurs before the held-out time.",
        )
    try:
        estimator.fit(frame) if labels is None else estimator.fit(frame, labels)
    except Exception as error:
        raise TrainingRefused(
            pipeline.name,
            f"{type(estimator).__name__}.fit raised {type(error).__name__} on {len(frame)} rows",
            "The traceback in the log names the line; correct build_model, preprocess or features.sql.",
        ) from error
    return estimator


def is_classifier(estimator: Any) -> bool:
    """Return whether an estimator predicts classes; what is no scikit-learn estimator shows it by ``classes_``."""
    from sklearn.base import is_classifier as says_so

    try:
        return bool(says_so(estimator)) or hasattr(estimator, "classes_")
    except (AttributeError, TypeError, ValueError):
        return hasattr(estimator, "classes_")


# Registering -----------------------------------------------------------------------------------------------------


def bundle_model(
    pipeline: Pipeline, contract: FeatureContract, estimator: Any, parts: Split, metrics: dict[str, Any]
) -> tuple[Bundle, bytes]:
    """Return the bundle of a trained model and its bytes, with golden rows and outputs from the held-out part."""
    from tasks.probes import create_bundle

    return create_bundle(
        name=pipeline.model.name,
        estimator=estimator,
        key=contract.key,
        features=contract.features,
        outputs=pipeline.predictions,
        preprocess=pipeline.preprocess_function(),
        sample=one_row_each(parts.held_out, contract.key)[0],
        labelled=parts.labelled,
        training_rows=one_row_each(parts.fitted, contract.key)[0],
        train_data_until=parts.fitted_until,
        metrics=metrics,
        logic_digest=pipeline.logic_digest,
        pipeline_module=registry.import_pipeline_code(pipeline),
    )


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A version in the registry, and where its alias is."""

    #: With the aliases that name it now.
    version: ModelVersion
    known_before: bool
    promotion: Promotion
    words: str


def register_model(
    url: str,
    pipeline: Pipeline,
    bundle: Bundle,
    data: bytes,
    *,
    source: str,
    promote: bool,
    trusted_pickle: bool = False,
) -> Registration:
    """Store a bundle and move the pipeline's alias to it when asked to, or when it names nothing: one transaction."""
    alias = pipeline.model.alias
    with connect(url, "prescore train") as connection:
        known = {version.digest for version in registry.list_versions(connection, bundle.name)}
        version = registry.register(connection, bundle, source=source, trusted_pickle=trusted_pickle, data=data)
        promotion = registry.promote(
            connection,
            bundle.name,
            version.version,
            alias,
            "asked for with --promote" if promote else f"first {alias}",
            if_vacant=not promote,
        )
        aliased = {found.version: found for found in registry.list_versions(connection, bundle.name)}
        version = aliased[version.version]
        connection.commit()
    if promotion.version != version.version:
        words = f"{alias} stays at version {promotion.version}; --promote moves it"
    elif not promotion.moved:
        words = f"{alias} was version {version.version} already"
    elif promotion.before is None:
        words = f"{alias} is version {version.version}, the first one"
    else:
        words = f"{alias} moved from version {promotion.before} to {version.version}"
    return Registration(version=version, known_before=version.digest in known, promotion=promotion, words=words)


def register_file(
    settings: Settings,
    name: str,
    file: Path,
    *,
    sample: Path,
    train_data_until: datetime,
    pipeline_name: str | None = None,
    trust_pickle: bool = False,
    promote: bool = False,
) -> Registration:
    """Register a model that was fitted elsewhere: ``prescore models register``.

    Parameters
    ----------
    name
        Name of the model, as a pipeline has it under [model].
    file
        A skops file, or a pickle or joblib file with ``trust_pickle``.
    sample
        A Parquet file of feature rows as the pipeline's feature query returns them; key and as_of where they are known, and
        ``label`` where the importance of the features is to be measured.
    train_data_until
        End of the data that the model was fitted on.
    pipeline_name
        The pipeline that will use it; needed when several have a model of this name, none of them the name itself.
    trust_pickle
        The caller vouches for a pickle or joblib file; recorded with the version.

    Raises
    ------
    RegistrationRefused, TypesRefused, PickleNotTrusted, ModelUnreadable, OutputNotOffered
    """
    from tasks.database import resolve_source_url, resolve_url
    from tasks.estimators import kind_of_file, load_estimator
    from tasks.features import feature_columns
    from tasks.forgotten import read_forgotten
    from tasks.probes import create_bundle

    if train_data_until.tzinfo is None:
        raise ValueError("train_data_until needs a time zone")
    pipeline = _pipeline_of(settings, name, pipeline_name)
    data = _file_bytes(name, file)
    loader = kind_of_file(data)
    if loader != "skops" and not trust_pickle:
        raise PickleNotTrusted(loader)
    module = registry.import_pipeline_code(pipeline)
    loaded = load_estimator(data, loader, module=module, trusted_pickle=trust_pickle)
    environment = running_environment(loaded.estimator)
    if loaded.made_with is not None:
        environment["scikit-learn"] = loaded.made_with
    url = resolve_url(settings)
    contract = feature_columns(resolve_source_url(settings, url), pipeline)
    rows = read_sample(name, sample, contract)
    with connect(url, "prescore models") as connection:
        forgotten = read_forgotten(connection, pipeline.name)
    if forgotten is not None:
        rows = forgotten.left_out_of_rows(rows, pipeline.entity.key)
    known_keys = all(column.name in rows.column_names for column in (*contract.key, AS_OF))
    bundle, packed = create_bundle(
        name=name,
        estimator=loaded.estimator,
        key=contract.key,
        features=contract.features,
        outputs=pipeline.predictions,
        preprocess=pipeline.preprocess_function(),
        sample=rows,
        labelled=LABEL in rows.column_names and not _is_read(LABEL, contract),
        train_data_until=train_data_until,
        metrics={},
        # Only rows whose key and as_of are known can be asked for again when the logic changes.
        logic_digest=pipeline.logic_digest if known_keys else None,
        pipeline_module=module,
        loader=loader,
        estimator_file=data,
        environment=environment,
    )
    digest = hashlib.sha256(data).hexdigest()[:12]
    return register_model(
        url,
        pipeline,
        bundle,
        packed,
        source=f"file {file.name} ({digest})",
        promote=promote,
        trusted_pickle=trust_pickle and loader != "skops",
    )


def read_sample(name: str, sample: Path, contract: FeatureContract) -> pa.Table:
    """Read feature rows from a Parquet file, in the types of the feature query; their labels too, where it has them.

    Raises
    ------
    RegistrationRefused
        When a feature is not there, or is of another type.
    """
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(sample)
    except (OSError, pa.ArrowInvalid) as error:
        raise RegistrationRefused(
            name, f"the sample {sample.name} cannot be read ({type(error).__name__})", "Write it as Parquet."
        ) from error
    missing = [column.name for column in contract.features if column.name not in rows.column_names]
    if missing:
        there = ", ".join(rows.column_names[:_SHOWN])
        raise RegistrationRefused(
            name,
            f"the sample {sample.name} lacks the features {', '.join(missing)}; it has {there}",
            "Write it with the columns of the feature query.",
        )
    arrays, fields = [], []
    for column in (*contract.key, AS_OF, *contract.features):
        if column.name not in rows.column_names:
            continue
        found = rows.column(column.name)
        try:
            arrays.append(found.cast(column.arrow_type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise RegistrationRefused(
                name,
                f"the sample's {column.name} is {found.type}, the feature query returns {column.postgres_type}",
                "Write the sample from the feature query, or cast the column there.",
            ) from None
        fields.append(pa.field(column.name, column.arrow_type))
    table = pa.table(arrays, schema=pa.schema(fields))
    if LABEL not in rows.column_names or LABEL in table.column_names:
        return table
    return table.append_column(LABEL, rows.column(LABEL))


def _is_read(name: str, contract: FeatureContract) -> bool:
    return any(column.name == name for column in (*contract.key, *contract.features))


def _pipeline_of(settings: Settings, model: str, named: str | None) -> Pipeline:
    """Return the pipeline whose model this is; of several the one that is named, or has the model's name."""
    from tasks.pipeline import find_pipeline, load_pipelines

    if named is not None:
        pipeline = find_pipeline(settings, named)
        if pipeline.model.name == model:
            return pipeline
        raise RegistrationRefused(
            model, f"pipeline {named} uses the model {pipeline.model.name}", "Name that model, or another pipeline."
        )
    pipelines = load_pipelines(settings.pipelines_dir)
    having = {name: pipeline for name, pipeline in pipelines.items() if pipeline.model.name == model}
    if len(having) == 1:
        return next(iter(having.values()))
    if model in having:
        return having[model]
    models = sorted({pipeline.model.name for pipeline in pipelines.values()})
    what = f"{len(having)} pipelines use it ({', '.join(sorted(having))})" if having else "no pipeline uses it"
    raise RegistrationRefused(
        model,
        f"{what}; models of pipelines: {', '.join(models) or 'none'}",
        "Name a pipeline's model, and of several pipelines the one with --pipeline.",
    )


def _file_bytes(model: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RegistrationRefused(
            model, f"the file {file.name} cannot be read ({type(error).__name__})", "Check the path."
        ) from error


def _instant(value: pa.Scalar) -> datetime:
    found: datetime = value.as_py()
    return found
