"""What a model does with rows that are unlike its training data, found out once, when it is registered.

A row that holds what made the model raise is rejected before it reaches the model; a model whose answers depend on the
batch that a row comes in cannot be registered at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.bundle import (
    AS_OF,
    Bundle,
    frame_table,
    outputs_table,
    preprocessed,
    running_environment,
    worst_difference,
)
from tasks.bundle_file import sealed
from tasks.columns import Column, Kind, model_frame
from tasks.errors import PrescoreError, RegistrationRefused
from tasks.estimators import load_estimator, save_estimator
from tasks.importance import measure_importance
from tasks.invariance import SAME_SCORE, require_rows_independent, score_rows
from tasks.outputs import output_columns, predict_outputs
from tasks.profiles.freezing import build_profile
from tasks.threads import one_thread

if TYPE_CHECKING:
    from tasks.bundle import Preprocess
    from tasks.pipeline import Output

#: Golden rows of a bundle: enough for every branch that matters, few enough to replay in milliseconds on every load.
GOLDEN_ROWS = 200

#: Rows that are changed for a probe: a fault that depends on the rest of the row shows in one of them.
_PROBED_ROWS = 20

UNSEEN = "prescore: a category that training has not seen"


def create_bundle(
    *,
    name: str,
    estimator: Any,
    key: Sequence[Column],
    features: Sequence[Column],
    outputs: Sequence[Output],
    preprocess: Preprocess,
    sample: pa.Table,
    train_data_until: datetime,
    metrics: dict[str, Any],
    logic_digest: str | None,
    training_rows: pa.Table | None = None,
    labelled: bool = False,
    pipeline_module: str | None = None,
    loader: str = "skops",
    estimator_file: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Bundle, bytes]:
    """Make a bundle of a fitted estimator, after trying it on rows as it will meet them.

    Parameters
    ----------
    name
        Name of the model.
    estimator
        The fitted model.
    key, features
        Columns of the feature query.
    outputs
        What the pipeline declares under [predictions].
    preprocess
        The pipeline's preprocess, or None.
    sample
        Rows to choose golden rows from and to profile outputs on, best ones that the model was not fitted on: the
        features, the key where it is known, and as_of (without it, ``train_data_until`` stands in); at least one row.
    train_data_until
        End of the data that the model was fitted on.
    metrics, logic_digest
        As in :class:`Bundle`.
    training_rows
        Rows that the model was fitted on, for the profile of the features; by default the sample.
    labelled
        Whether the sample's column ``label`` is what came true for each row, to measure the importance of features with.
    pipeline_module
        ``prescore_pipelines.<name>``, whose classes the model may use.
    loader, estimator_file
        For a model that came as a file: what reads it, and its bytes. By default the estimator is written by skops.
    environment
        Versions that made the model; by default the running ones.

    Returns
    -------
    Bundle, bytes
        The bundle with its digest, and what the registry stores.

    Raises
    ------
    RegistrationRefused
        When the model's answer depends on its batch or on the order of columns, is not the same twice, or changes when
        the model is written and read.
    OutputNotOffered, PreprocessRefused, TypesRefused, ModelUnreadable
        From the parts.
    """
    features, outputs = tuple(features), tuple(outputs)
    if not sample.num_rows:
        raise RegistrationRefused(name, "the sample has no rows", "Give it rows as the feature query returns them.")
    if AS_OF.name not in sample.column_names:
        instants = pa.array([train_data_until] * sample.num_rows, AS_OF.arrow_type)
        sample = sample.append_column(AS_OF.name, instants)
    require_fitted(estimator, name)
    golden = choose_golden(sample, key, features)
    frame = preprocessed(golden, features, preprocess)
    fitted_on = _model_features(estimator, frame, name)
    columns = output_columns(estimator, outputs, frame[list(fitted_on)])
    if estimator_file is None:
        estimator_file = save_estimator(estimator)
    draft = Bundle(
        name=name,
        estimator=estimator,
        features=features,
        key=tuple(key),
        model_features=fitted_on,
        outputs=outputs,
        output_columns=columns,
        golden=golden,
        golden_preprocessed=golden,
        golden_outputs=golden,
        profile={},
        metrics=metrics,
        environment=dict(environment or running_environment(estimator)),
        logic_digest=logic_digest,
        train_data_until=train_data_until,
        probes={},
        loader=loader,
        estimator_file=estimator_file,
    )
    with one_thread():
        golden, dropped = rows_that_score(draft, golden, preprocess)
        differences = require_rows_independent(draft, golden, preprocess)
        probes = probe(draft, golden, preprocess)
        prepared = preprocessed(golden, features, preprocess)
        scored = outputs_table(draft.score(prepared))
        _require_readable(draft, prepared, scored, pipeline_module)
    training_rows = sample if training_rows is None else training_rows
    profile = build_profile(training_rows, features, _outputs_of(draft, sample, preprocess))
    importance = measure_importance(draft, sample, preprocess, labelled=labelled)
    for feature, share in importance.shares.items() if importance.measured else ():
        profile["features"][feature]["importance"] = share
    bundle = replace(
        draft,
        golden=golden,
        golden_preprocessed=frame_table(prepared),
        golden_outputs=scored,
        profile=profile,
        probes={
            **probes,
            "same_scores": differences,
            "rows": golden.num_rows,
            "sample_rows_that_raised": dropped,
            "importance": importance.as_json(),
        },
    )
    bundle = replace(bundle, known_categories=_known_categories(bundle, training_rows))
    return sealed(bundle)


def require_fitted(estimator: Any, name: str) -> None:
    """Refuse an estimator of a known library that was not fitted, or one with such a step."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    for part in (part for _, part in getattr(estimator, "steps", [("", estimator)])):
        # Own classes need not follow scikit-learn's customs; what they raise shows when they score.
        if type(part).__module__.split(".", 1)[0] not in ("sklearn", "lightgbm", "xgboost"):
            continue
        try:
            check_is_fitted(part)
        except NotFittedError:
            raise RegistrationRefused(
                name, f"its {type(part).__name__} is not fitted", "Call fit on the whole estimator before saving it."
            ) from None


def choose_golden(sample: pa.Table, key: Sequence[Column], features: Sequence[Column]) -> pa.Table:
    """Return up to ``GOLDEN_ROWS`` rows spread over the sample, a fifth of them with NULLs where there are such rows.

    Columns: the key and as_of as far as the sample has them, then the features.
    """
    wanted = [*(column.name for column in key), AS_OF.name]
    names = [name for name in wanted if name in sample.column_names] + [column.name for column in features]
    missing = [column.name for column in features if column.name not in sample.column_names]
    if missing:
        raise RegistrationRefused(
            "of this sample",
            f"the sample lacks the features {', '.join(missing)}",
            f"It has {', '.join(sample.column_names)}; write it from the feature query.",
        )
    holes = np.zeros(sample.num_rows, dtype=bool)
    for column in features:
        holes |= pc.is_null(sample.column(column.name), nan_is_null=True).to_numpy()
    with_holes, whole = np.flatnonzero(holes), np.flatnonzero(~holes)
    few = max(GOLDEN_ROWS // 5, GOLDEN_ROWS - len(whole))
    chosen = _spread(with_holes, few)
    chosen = np.sort(np.concatenate([chosen, _spread(whole, GOLDEN_ROWS - len(chosen))]))
    return sample.select(names).take(pa.array(chosen)).combine_chunks()


def _spread(positions: np.ndarray[Any, np.dtype[np.int64]], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if len(positions) <= count:
        return positions
    return positions[np.unique(np.linspace(0, len(positions) - 1, count).astype(np.int64))]


def rows_that_score(bundle: Bundle, golden: pa.Table, preprocess: Preprocess) -> tuple[pa.Table, int]:
    """Return the golden rows that the model can score, and how many it cannot.

    Such rows are rejected in a run too, for what the probes find out.

    Raises
    ------
    RegistrationRefused
        When it can score none of them.
    """
    if not _outcome(partial(score_rows, bundle, golden, preprocess)).startswith("raises"):
        return golden, 0
    outcomes = [_outcome(partial(score_rows, bundle, row, preprocess)) for row in _single_rows(golden)]
    kept = [at for at, outcome in enumerate(outcomes) if not outcome.startswith("raises")]
    if not kept:
        raise RegistrationRefused(
            bundle.name,
            f"it scores none of {golden.num_rows} sample rows ({outcomes[0]})",
            "Check that the sample has the features, types and preprocessing that the model was fitted on.",
        )
    return golden.take(pa.array(kept)).combine_chunks(), golden.num_rows - len(kept)


def _single_rows(table: pa.Table) -> list[pa.Table]:
    return [table.slice(at, 1) for at in range(table.num_rows)]


def probe(bundle: Bundle, golden: pa.Table, preprocess: Preprocess) -> dict[str, Any]:
    """Return what unusual values in each feature give, in the words of ``_outcome``.

    ``null`` for every feature; ``nan`` and ``infinity`` for those that can hold them; ``unseen`` for text;
    ``missing_column`` for every feature: the frame without it. ``null_as_nan`` for text that the model scores when it is
    NULL: ``same``, or ``differs`` where NaN, which pandas has for a missing text, is scored otherwise than None.
    """
    frame = model_frame(golden.slice(0, _PROBED_ROWS), (AS_OF, *bundle.features))
    kinds = ("null", "nan", "infinity", "unseen", "missing_column", "null_as_nan")
    found: dict[str, Any] = {kind: {} for kind in kinds}

    def scored(changed: pd.DataFrame) -> pa.Table:
        return outputs_table(bundle.score(_prepared(changed, preprocess)))

    def give(changed: pd.DataFrame) -> str:
        return _outcome(partial(scored, changed))

    def filled(column: Column, value: Any) -> pd.DataFrame:
        same = pd.Series([value] * len(frame), dtype=frame[column.name].dtype, index=frame.index)
        return frame.assign(**{column.name: same})

    def with_all(column: Column, value: Any) -> str:
        return give(filled(column, value))

    def null_as_nan(column: Column) -> str:
        try:
            as_nan = scored(filled(column, np.nan))
        except Exception:
            return "differs"
        return "same" if worst_difference(scored(filled(column, None)), as_nan, SAME_SCORE) is None else "differs"

    for column in bundle.features:
        name = column.name
        found["null"][name] = with_all(column, np.nan if column.kind is Kind.NUMBER else None)
        if pa.types.is_floating(column.arrow_type):
            # The model sees NULL and NaN alike.
            found["nan"][name] = found["null"][name]
            both = [with_all(column, value) for value in (np.inf, -np.inf)]
            found["infinity"][name] = max(both, key=_severity)
        if column.kind is Kind.TEXT:
            found["unseen"][name] = with_all(column, UNSEEN)
            if found["null"][name] == "scores":
                found["null_as_nan"][name] = null_as_nan(column)
        found["missing_column"][name] = give(frame.drop(columns=[name]))
    return found


def _outcome(attempt: Callable[[], pa.Table]) -> str:
    """Return ``scores``, ``not finite: `` and the outputs that are NaN or infinite, or ``raises: `` and the exception."""
    try:
        scored = attempt()
    except Exception as error:
        return f"raises: {type(error).__name__}"
    bad = [name for name in scored.column_names if _has_non_finite(scored.column(name).combine_chunks())]
    return f"not finite: {', '.join(bad)}" if bad else "scores"


def _severity(outcome: str) -> int:
    return 2 if outcome.startswith("raises") else int(outcome != "scores")


def _has_non_finite(values: pa.Array) -> bool:
    if pa.types.is_list(values.type):
        values = values.flatten()
    if pa.types.is_floating(values.type):
        return not pc.all(pc.fill_null(pc.is_finite(values), False), min_count=0).as_py()
    return bool(values.null_count)


def _prepared(frame: pd.DataFrame, preprocess: Preprocess) -> pd.DataFrame:
    if preprocess is None:
        return frame.drop(columns=[AS_OF.name], errors="ignore")
    found = preprocess(frame.copy())
    return found.drop(columns=[AS_OF.name], errors="ignore")


def _model_features(estimator: Any, frame: pd.DataFrame, name: str) -> tuple[str, ...]:
    """Return the columns that the model was fitted on: what it says itself, else what preprocessing gives."""
    found = [str(column) for column in frame.columns]
    own = getattr(estimator, "feature_names_in_", None)
    if own is None:
        width = getattr(estimator, "n_features_in_", len(found))
        if width != len(found):
            raise RegistrationRefused(
                name,
                f"it was fitted on {width} columns without names, {len(found)} are built ({', '.join(found)})",
                "Fit it on a frame with the names of the features.",
            )
        return tuple(found)
    wanted = tuple(str(column) for column in own)
    missing = [column for column in wanted if column not in found]
    if missing:
        raise RegistrationRefused(
            name,
            f"it was fitted on {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not built (built: "
            f"{', '.join(found)})",
            "Add the columns to features.sql or preprocess.",
        )
    return wanted


def _require_readable(bundle: Bundle, prepared: pd.DataFrame, scored: pa.Table, pipeline_module: str | None) -> None:
    """Refuse a model that its file does not give back, or not with the same scores."""
    loaded = load_estimator(
        bundle.estimator_file or b"",
        bundle.loader,
        module=pipeline_module,
        trusted_pickle=bundle.loader != "skops",
    )
    again = predict_outputs(loaded.estimator, bundle.prepare(prepared), bundle.outputs, bundle.output_columns)
    worst = worst_difference(scored, outputs_table(again), SAME_SCORE)
    if worst is not None:
        raise RegistrationRefused(
            bundle.name,
            f"its scores change when it is written and read: {worst}",
            "Keep everything that the model needs in attributes that end in an underscore, as scikit-learn does.",
        )


def _outputs_of(bundle: Bundle, sample: pa.Table, preprocess: Preprocess) -> pa.Table:
    """Return the predictions for the sample, without the rows that a run would reject."""
    keep = np.ones(sample.num_rows, dtype=bool)
    try:
        return score_rows(bundle, sample, preprocess)
    except PrescoreError:
        raise
    except Exception:
        # A few rows that raise: those with NULL are the usual ones. The golden rows score for certain.
        for column in bundle.features:
            keep &= ~pc.is_null(sample.column(column.name), nan_is_null=True).to_numpy()
    try:
        return score_rows(bundle, sample.filter(pa.array(keep)), preprocess)
    except Exception:
        return score_rows(bundle, bundle.golden, preprocess)


def _known_categories(bundle: Bundle, rows: pa.Table) -> dict[str, list[str]]:
    """Return the values of training of those text features whose unseen values raise."""
    return {
        name: sorted(value for value in pc.unique(rows.column(name)).cast(pa.string()).to_pylist() if value is not None)
        for name in bundle.raises_on_unseen
    }
