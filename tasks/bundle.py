"""A model bundle: the estimator with everything that says whether it still does what it did when it was registered.

One zip holds the estimator's file, a manifest, the golden rows and the training profile. The digest is the SHA-256 of
the zip's bytes; it is compared before the zip is opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.archives import ZIP_EPOCH, is_archive, open_archive, read_member
from tasks.columns import Column, model_frame
from tasks.errors import BundleTampered, ColumnsMissing, ModelUnreadable, PreprocessRefused, printable
from tasks.estimators import load_estimator, save_estimator
from tasks.outputs import output_columns, predict_outputs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from tasks.pipeline import Output

    Preprocess = Callable[[pd.DataFrame], pd.DataFrame] | None

FORMAT = 1

#: What decides how a model computes and whether its file can be read.
LIBRARIES = ("scikit-learn", "numpy", "pandas", "scipy", "skops", "joblib", "threadpoolctl")

#: Recorded only for models that are made of them.
_OPTIONAL_LIBRARIES = ("lightgbm", "xgboost")

#: Values far from zero cannot agree to a fixed number of decimals on every machine: they may differ by ``atol`` plus
#: this share of themselves.
RELATIVE_TOLERANCE = 1e-9

#: Bytes that a bundle of any size may expand to. A model that is mostly zeros gives a small bundle and is no attack, so
#: this is generous; what a bundle of more gives when it is written is refused then, and not at the next run.
MOST_EXPANDED = 1024**3

AS_OF = Column(name="as_of", postgres_type="timestamp with time zone")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One immutable model with its evidence."""

    #: Name of the model.
    name: str
    #: The fitted estimator.
    estimator: Any = field(repr=False)
    #: Columns of the feature query without key and as_of, in order.
    features: tuple[Column, ...]
    #: Key columns, in order.
    key: tuple[Column, ...]
    #: Columns that the model was fitted on, after preprocessing, in order.
    model_features: tuple[str, ...]
    #: What it predicts, as declared when it was registered.
    outputs: tuple[Output, ...]
    #: The SQL columns of these.
    output_columns: tuple[Column, ...]
    #: Golden rows: key, as_of and features as the feature query returned them.
    golden: pa.Table = field(repr=False)
    #: The same rows after preprocessing.
    golden_preprocessed: pa.Table = field(repr=False)
    #: What the model gave for them.
    golden_outputs: pa.Table = field(repr=False)
    #: Frozen bins of features and outputs: drift.build_profile.
    profile: dict[str, Any] = field(repr=False)
    #: Metrics on held-out rows beside a naive baseline.
    metrics: dict[str, Any]
    #: Library -> version at registration.
    environment: dict[str, str]
    #: Logic digest of the pipeline at registration; None for a model that was registered from a file without one.
    logic_digest: str | None
    #: End of the data that the model was fitted on.
    train_data_until: datetime
    #: What NULL, unseen categories, NaN, infinity and missing columns gave, and how far scores in other batches differed:
    #: see probes.py and invariance.py.
    probes: dict[str, Any]
    #: SHA-256 of the bundle's bytes, 64 hex digits; empty until it is written.
    digest: str = ""
    #: What reads the estimator's file: skops, pickle or joblib.
    loader: str = "skops"
    #: Text feature -> the values of training, for those columns whose unseen values make the model raise.
    known_categories: dict[str, list[str]] = field(default_factory=dict, repr=False)
    #: The estimator's file as registered; None after loading, to hold it in memory once only.
    estimator_file: bytes | None = field(default=None, repr=False, compare=False)

    def prepare(self, prepared: pd.DataFrame) -> pd.DataFrame:
        """Return a preprocessed frame with exactly the columns that the model was fitted on, in its order.

        Columns that the model does not know are left out.

        Raises
        ------
        ColumnsMissing
            Naming missing and unexpected columns.
        """
        found = [str(name) for name in prepared.columns]
        if tuple(found) == self.model_features:
            return prepared
        if not set(self.model_features) <= set(found):
            raise ColumnsMissing(model=self.name, expected=self.model_features, found=found)
        return prepared[list(self.model_features)]

    def score(self, prepared: pd.DataFrame) -> dict[str, pa.Array]:
        """Return the predictions for a preprocessed frame: one array of its length per output, by name.

        Raises
        ------
        ColumnsMissing, OutputRefused
            As :meth:`prepare` and ``outputs.predict_outputs`` do; what the model itself raises passes through.
        """
        return predict_outputs(self.estimator, self.prepare(prepared), self.outputs, self.output_columns)

    def columns_for(self, outputs: Sequence[Output]) -> tuple[Column, ...]:
        """Return the SQL columns of declared outputs: as recorded, or found on the golden rows if declared otherwise.

        Raises
        ------
        OutputNotOffered
            When the model has no such method, class or output.
        """
        if tuple(outputs) == self.outputs:
            return self.output_columns
        return output_columns(self.estimator, outputs, self.golden_preprocessed.to_pandas()[list(self.model_features)])

    @cached_property
    def raises_on_null(self) -> frozenset[str]:
        """Features in which NULL made the model raise at registration."""
        return self._raising("null")

    @cached_property
    def raises_on_infinity(self) -> frozenset[str]:
        """Features in which infinity made the model raise at registration."""
        return self._raising("infinity")

    @cached_property
    def raises_on_unseen(self) -> frozenset[str]:
        """Text features in which a value that training had not seen made the model raise at registration."""
        return self._raising("unseen")

    def _raising(self, probe: str) -> frozenset[str]:
        return frozenset(name for name, found in self.probes.get(probe, {}).items() if found.startswith("raises"))


@dataclass(frozen=True, kw_only=True)
class GoldenResult:
    """What replaying the golden rows gave."""

    #: Whether every preprocessed value and every prediction is as recorded.
    passed: bool
    #: Rows compared.
    compared: int
    #: The column that differs most, in words without values; None when it passed.
    worst: str | None = None


# The frame that a model sees -------------------------------------------------------------------------------------


def preprocessed(table: pa.Table | pa.RecordBatch, features: Sequence[Column], preprocess: Preprocess) -> pd.DataFrame:
    """Return the frame that a model sees of feature rows: the pipeline's preprocess applied to as_of and features.

    Without a preprocess it is the features alone; ``as_of`` left in the frame by a preprocess is taken out, for a model
    must not learn the day it is asked.

    Raises
    ------
    PreprocessRefused
        When the result is no frame, or has other rows or another order of rows.
    """
    if preprocess is None:
        return model_frame(table, features)
    import pandas as pd

    frame = model_frame(table, (AS_OF, *features))
    found = preprocess(frame)
    if not isinstance(found, pd.DataFrame):
        raise PreprocessRefused(f"returned {type(found).__name__}", "Return the frame.")
    if len(found) != table.num_rows:
        raise PreprocessRefused(
            f"returned {len(found)} rows for {table.num_rows}",
            "It must be row-wise: fill what is missing instead of dropping rows.",
        )
    if not np.array_equal(found.index, np.arange(table.num_rows)):
        raise PreprocessRefused("changed the order or the index of the rows", "Return them as they came.")
    if len(set(found.columns)) != found.shape[1]:
        raise PreprocessRefused("returned two columns of one name", "Give each column a name of its own.")
    return found.drop(columns=[AS_OF.name]) if AS_OF.name in found.columns else found


# Environment -----------------------------------------------------------------------------------------------------


def running_environment(estimator: Any = None) -> dict[str, str]:
    """Return the versions of Python and of the libraries that make and read models; absent ones are left out."""
    found = {"python": platform.python_version()}
    used = {module.split(".", 1)[0] for module in sys.modules} if estimator is None else _roots(estimator)
    for name in (*LIBRARIES, *(library for library in _OPTIONAL_LIBRARIES if library in used)):
        version = _installed(name)
        if version is not None:
            found[name] = version
    return found


def environment_differences(recorded: Mapping[str, str], running: Mapping[str, str], level: str) -> list[str]:
    """Return in words what differs between two environments; empty when nothing does.

    Parameters
    ----------
    recorded, running
        Library -> version. What runs beyond what was recorded does not count.
    level
        ``exact`` compares whole versions, ``minor`` the first two numbers, ``major`` the first.
    """
    parts = {"exact": None, "minor": 2, "major": 1}[level]
    differences = []
    for name, version in recorded.items():
        now = running.get(name) or _installed(name)
        if now is None:
            differences.append(f"{name} {version} recorded, not installed here")
        elif version.split(".")[:parts] != now.split(".")[:parts]:
            differences.append(f"{name} {version} recorded, {now} running")
    return differences


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # Some libraries are also distributed under another name, such as xgboost-cpu.
        version = getattr(sys.modules.get(name), "__version__", None)
        return None if version is None else str(version)


def _roots(estimator: Any) -> set[str]:
    """Return the top-level modules of an estimator and of the parts it is made of."""
    found: set[str] = set()
    parts = [estimator]
    if hasattr(estimator, "get_params"):
        parts += list(estimator.get_params(deep=True).values())
    for part in parts:
        found.update(base.__module__.split(".", 1)[0] for base in type(part).__mro__)
    return found


# Writing and reading ---------------------------------------------------------------------------------------------


def dumps(bundle: Bundle) -> bytes:
    """Return a bundle as bytes: a compressed zip, the same for the same bundle."""
    estimator = bundle.estimator_file
    if estimator is None:
        if bundle.loader != "skops":
            raise ModelUnreadable("the estimator's own file is gone", "Register it from its file again.")
        estimator = save_estimator(bundle.estimator)
    members = {
        "manifest.json": _json(_manifest(bundle)),
        "estimator": estimator,
        "golden.arrow": _ipc(bundle.golden),
        "golden_preprocessed.arrow": _ipc(bundle.golden_preprocessed),
        "golden_outputs.arrow": _ipc(bundle.golden_outputs),
        "profile.json": _json(bundle.profile),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=1)
    made = out.getvalue()
    with open_archive(made, f"the bundle of {bundle.name}", allowed=MOST_EXPANDED):
        return made


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of a bundle's bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def loads(
    data: bytes,
    *,
    pipeline_module: str | None = None,
    expect_digest: str | None = None,
    trusted_pickle: bool = False,
    trusted_file: str | None = None,
    what: str = "The bundle",
) -> Bundle:
    """Read a bundle from its bytes.

    Parameters
    ----------
    data
        What :func:`dumps` gave.
    pipeline_module
        ``prescore_pipelines.<name>`` of the pipeline whose own classes the model may use; its code is already imported.
    expect_digest
        The digest that the registry recorded. It is compared before anything is read.
    trusted_pickle
        Whether a person vouched for this version; only then is a pickle or joblib file opened.
    trusted_file
        The SHA-256 of the file that they vouched for; no other is opened then.
    what
        What a message calls the bundle, such as "Model churn version 3".

    Raises
    ------
    BundleTampered, TypesRefused, PickleNotTrusted, ModelUnreadable
        Before anything of the estimator was imported.
    """
    found = digest_of(data)
    if expect_digest is not None and found != expect_digest:
        raise BundleTampered(what=what, expected=expect_digest, found=found)
    members = _read_members(data, what)
    evidence = _read_evidence(members, what)
    estimator_file = members.pop("estimator")
    trusted_is_another = trusted_file is not None and digest_of(estimator_file) != trusted_file
    if evidence["loader"] != "skops" and trusted_pickle and trusted_is_another:
        raise BundleTampered(what=f"{what}'s pickle", expected=str(trusted_file), found=digest_of(estimator_file))
    loaded = load_estimator(estimator_file, evidence["loader"], module=pipeline_module, trusted_pickle=trusted_pickle)
    environment = dict(evidence.pop("environment"))
    if loaded.made_with is not None:
        # What scikit-learn only warns of is a difference of environments here.
        environment["scikit-learn"] = loaded.made_with
    return Bundle(estimator=loaded.estimator, environment=environment, digest=found, **evidence)


def _read_members(data: bytes, what: str) -> dict[str, bytes]:
    if not is_archive(data):
        raise ModelUnreadable(f"{what} is no bundle", "Register the model again.")
    with open_archive(data, what, allowed=MOST_EXPANDED) as archive:
        missing = sorted(set(_MEMBERS) - set(archive.namelist()))
        if missing:
            raise ModelUnreadable(f"{what} is no bundle: it lacks {', '.join(missing)}", "Register the model again.")
        return {name: read_member(archive, name) for name in _MEMBERS}


def _read_evidence(members: Mapping[str, bytes], what: str) -> dict[str, Any]:
    """Return all fields of a bundle but the estimator and the digest, read from its members."""
    try:
        manifest = json.loads(members["manifest.json"])
        if manifest["format"] != FORMAT:
            raise ModelUnreadable(
                f"{what} has the format {printable(str(manifest['format']))}, this prescore reads {FORMAT}",
                "Use the prescore that registered it, or register it again.",
            )
        return {
            "name": manifest["name"],
            "loader": manifest["loader"],
            "features": _columns(manifest["features"]),
            "key": _columns(manifest["key"]),
            "model_features": tuple(manifest["model_features"]),
            "outputs": tuple(_output(declared) for declared in manifest["outputs"]),
            "output_columns": _columns(manifest["output_columns"]),
            "metrics": manifest["metrics"],
            "environment": dict(manifest["environment"]),
            "logic_digest": manifest["logic_digest"],
            "train_data_until": datetime.fromisoformat(manifest["train_data_until"]),
            "probes": manifest["probes"],
            "known_categories": manifest["known_categories"],
            "profile": json.loads(members["profile.json"]),
            **{name: _table(members[f"{name}.arrow"]) for name in _GOLDEN_TABLES},
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, OSError, pa.ArrowException) as error:
        raise ModelUnreadable(f"{what} is no bundle ({type(error).__name__})", "Register the model again.") from error


def sealed(bundle: Bundle) -> tuple[Bundle, bytes]:
    """Return a bundle with its digest, and its bytes."""
    data = dumps(bundle)
    return replace(bundle, digest=digest_of(data)), data


_GOLDEN_TABLES = ("golden", "golden_preprocessed", "golden_outputs")

_MEMBERS = ("manifest.json", "estimator", "profile.json", *(f"{name}.arrow" for name in _GOLDEN_TABLES))

#: As pipeline.toml calls them.
_OUTPUT_FIELDS = ("name", "method", "class", "output", "reduce", "part", "k", "index")


def signature(bundle: Bundle) -> dict[str, Any]:
    """Return key, feature and prediction columns with their SQL types, ready for JSON."""
    return {
        "key": _declared(bundle.key),
        "features": _declared(bundle.features),
        "model_features": list(bundle.model_features),
        "outputs": _declared(bundle.output_columns),
    }


def _manifest(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": bundle.name,
        "loader": bundle.loader,
        "key": _declared(bundle.key),
        "features": _declared(bundle.features),
        "model_features": list(bundle.model_features),
        "outputs": [_declaration(output) for output in bundle.outputs],
        "output_columns": _declared(bundle.output_columns),
        "metrics": bundle.metrics,
        "environment": bundle.environment,
        "logic_digest": bundle.logic_digest,
        "train_data_until": bundle.train_data_until.isoformat(),
        "probes": bundle.probes,
        "known_categories": bundle.known_categories,
    }


def _declaration(output: Output) -> dict[str, Any]:
    return {name: getattr(output, "class_" if name == "class" else name) for name in _OUTPUT_FIELDS}


def _output(declared: dict[str, Any]) -> Output:
    from tasks.pipeline import Output

    return Output.model_validate(declared)


def _declared(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [{"name": column.name, "type": column.postgres_type} for column in columns]


def _columns(declared: Sequence[Mapping[str, str]]) -> tuple[Column, ...]:
    return tuple(Column(name=column["name"], postgres_type=column["type"]) for column in declared)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def _table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all().replace_schema_metadata(None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let models compute with one thread: for a few rows the threads of busy cores cost far more than they give.

    Measured on two busy cores: 20 rows through a HistGradientBoosting of 100 trees took 0.3 s with all threads.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        yield


# Golden rows -----------------------------------------------------------------------------------------------------


def frame_table(frame: pd.DataFrame) -> pa.Table:
    """Return a preprocessed frame as an Arrow table, to be kept and compared.

    Raises
    ------
    PreprocessRefused
        When a column holds what no column type can.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        # Arrow's message may quote a value; the type of the fault does not.
        raise PreprocessRefused(
            f"returned a column of mixed or unusual values ({type(error).__name__})",
            "Return columns of numbers, text, booleans, times or categories.",
        ) from None
    return table.replace_schema_metadata(None)


def outputs_table(outputs: Mapping[str, pa.Array]) -> pa.Table:
    """Return predictions as an Arrow table, one column per output."""
    return pa.table(dict(outputs))


def replay_golden(bundle: Bundle, preprocess: Preprocess, atol: float) -> GoldenResult:
    """Score the golden rows again from their feature-query values and compare with what was recorded.

    Both layers are compared: the preprocessed values (which finds a changed preprocess) and the predictions (which
    finds a changed model or library). Text, classes, integers and the order of ranked lists must be equal; values may
    differ by ``atol`` plus a billionth of themselves.
    """
    rows = bundle.golden.num_rows
    try:
        prepared = preprocessed(bundle.golden, bundle.features, preprocess)
        with one_thread():
            now = {"preprocessed": frame_table(prepared), "prediction": outputs_table(bundle.score(prepared))}
    except Exception as error:
        return GoldenResult(passed=False, compared=rows, worst=f"replaying raised {type(error).__name__}")
    for layer, recorded in (("preprocessed", bundle.golden_preprocessed), ("prediction", bundle.golden_outputs)):
        worst = worst_difference(recorded, now[layer], atol)
        if worst is not None:
            return GoldenResult(passed=False, compared=rows, worst=f"{layer} column {worst}")
    return GoldenResult(passed=True, compared=rows)


def worst_difference(recorded: pa.Table, now: pa.Table, atol: float) -> str | None:
    """Return which column of two tables differs in most rows, and by how much; None when they agree."""
    missing = [name for name in recorded.column_names if name not in now.column_names]
    if missing:
        return f"{missing[0]} is missing"
    worst: tuple[int, str] | None = None
    for name in recorded.column_names:
        found = _difference(recorded.column(name).combine_chunks(), now.column(name).combine_chunks(), atol)
        if found is not None and (worst is None or found[0] > worst[0]):
            worst = (found[0], f"{name} {found[1]}")
    return worst[1] if worst else None


def _difference(recorded: pa.Array, now: pa.Array, atol: float) -> tuple[int, str] | None:
    """Return in how many values two columns differ, and by how much in words; None when they agree."""
    recorded, now = _plain(recorded), _plain(now)
    if pa.types.is_null(recorded.type):
        recorded = recorded.cast(now.type)
    if recorded.type != now.type:
        return len(recorded), f"has the type {now.type}, recorded was {recorded.type}"
    if pa.types.is_list(recorded.type):
        lengths = [pc.fill_null(pc.list_value_length(values), -1) for values in (recorded, now)]
        if not lengths[0].equals(lengths[1]):
            return len(recorded), "has lists of other lengths"
        return _difference(recorded.flatten(), now.flatten(), atol)
    if pa.types.is_floating(recorded.type):
        return _float_difference(_float_values(recorded), _float_values(now), atol)
    unequal = pc.fill_null(pc.not_equal(recorded, now), False)
    unequal = pc.or_(unequal, pc.xor(pc.is_null(recorded), pc.is_null(now)))
    count = int(pc.sum(pc.cast(unequal, pa.int64())).as_py() or 0)
    return (count, f"differs in {count} of {len(recorded)} values") if count else None


def _plain(values: pa.Array) -> pa.Array:
    """Return values without how pandas happened to hold them: categories are text, large text is text."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values


def _float_difference(before: NDArray[np.float64], after: NDArray[np.float64], atol: float) -> tuple[int, str] | None:
    with np.errstate(invalid="ignore"):
        gap = np.abs(after - before)
        near = gap <= atol + RELATIVE_TOLERANCE * np.abs(before)
    # Equal infinities have no difference; NaN on both sides is the same answer; infinity is near nothing else.
    same = (before == after) | (np.isnan(before) & np.isnan(after)) | (near & np.isfinite(before))
    if same.all():
        return None
    largest = float(np.nan_to_num(gap[~same], nan=np.inf).max())
    count = int((~same).sum())
    return count, f"differs by up to {largest:.3g} in {count} of {len(before)} values"


def _float_values(values: pa.Array) -> NDArray[np.float64]:
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
