"""A bundle as bytes: one zip of the estimator's file, a manifest, the golden rows and the training profile.

The digest is the SHA-256 of the zip's bytes; it is compared before the zip is opened.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.archives import ZIP_EPOCH, is_archive, open_archive, read_member
from tasks.bundle import Bundle
from tasks.columns import Column
from tasks.errors import BundleTampered, ModelUnreadable, printable
from tasks.estimators import load_estimator, save_estimator

if TYPE_CHECKING:
    from tasks.pipeline import Output

FORMAT = 1

#: Bytes that a bundle of any size may expand to. A model that is mostly zeros gives a small bundle and is no attack, so
#: this is generous; what a bundle of more gives when it is written is refused then, and not at the next run.
MOST_EXPANDED = 1024**3


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
    made = _packed(members)
    with open_archive(made, f"the bundle of {bundle.name}", allowed=MOST_EXPANDED):
        return made


def without_entity(data: bytes, key: Mapping[str, pa.Scalar]) -> tuple[bytes, int]:
    """Return the bytes of a bundle without the remembered rows of one entity, and how many those were.

    ``key`` holds the value of each key column. The estimator is neither read nor changed. Without such rows, or where the
    bundle does not know keys, the bytes are the same.
    """
    members = _read_members(data, "The bundle")
    golden = _table(members["golden.arrow"])
    if not set(key) <= set(golden.column_names):
        return data, 0
    is_it = functools.reduce(
        pc.and_, (pc.equal(golden.column(n), v.cast(golden.column(n).type)) for n, v in key.items())
    )
    count = int(pc.sum(pc.cast(is_it, pa.int64())).as_py() or 0)
    if not count:
        return data, 0
    kept = pc.invert(pc.fill_null(is_it, False))
    tables = {f"{name}.arrow": _ipc(_table(members[f"{name}.arrow"]).filter(kept)) for name in _GOLDEN_TABLES}
    return _packed({**members, **tables}), count


def _packed(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data, compresslevel=1)
    return out.getvalue()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of a bundle's bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def loads(
    data: bytes,
    *,
    pipeline_module: str | None = None,
    former_modules: Sequence[str] = (),
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
    former_modules
        What that package was called before the pipeline was renamed: a model that was saved then names its classes so.
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
    loaded = load_estimator(
        estimator_file, evidence["loader"], module=pipeline_module, former=former_modules, trusted_pickle=trusted_pickle
    )
    environment = dict(evidence.pop("environment"))
    if loaded.made_with is not None:
        # What scikit-learn only warns of is a difference of environments here.
        environment["scikit-learn"] = loaded.made_with
    return Bundle(estimator=loaded.estimator, environment=environment, digest=found, **evidence)


def read_profile(data: bytes, *, expect_digest: str, what: str = "The bundle") -> dict[str, Any]:
    """Return the training profile of a bundle's bytes; nothing else of it is read, and no estimator is made.

    Raises
    ------
    BundleTampered, ModelUnreadable
    """
    found = digest_of(data)
    if found != expect_digest:
        raise BundleTampered(what=what, expected=expect_digest, found=found)
    try:
        profile: dict[str, Any] = json.loads(_read_members(data, what, ("profile.json",))["profile.json"])
    except (ValueError, RecursionError) as error:
        raise ModelUnreadable(f"{what} has no profile ({type(error).__name__})", "Register the model again.") from error
    return profile


def _read_members(data: bytes, what: str, wanted: Sequence[str] | None = None) -> dict[str, bytes]:
    if not is_archive(data):
        raise ModelUnreadable(f"{what} is no bundle", "Register the model again.")
    with open_archive(data, what, allowed=MOST_EXPANDED) as archive:
        missing = sorted(set(_MEMBERS) - set(archive.namelist()))
        if missing:
            raise ModelUnreadable(f"{what} is no bundle: it lacks {', '.join(missing)}", "Register the model again.")
        return {name: read_member(archive, name) for name in wanted or _MEMBERS}


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
