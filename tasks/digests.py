"""What a pipeline declares, in two fingerprints: what decides predictions, and everything else."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import pipeline_code, usersql
from tasks.errors import SqlInvalid

if TYPE_CHECKING:
    from tasks.pipeline import Pipeline


def logic_digest(pipeline: Pipeline, further: Sequence[str] = ()) -> str:
    """Return the SHA-256, in hex, of everything that decides the value of a prediction.

    That is: the key; the parse trees of the entity, feature and changes queries (an entity that changes.sql misses
    keeps its old value); preprocess and time_invariant; each output with what it is made of; the syntax tree of every
    .py file of the folder, and the files of [logic]. Whitespace, comments, docstrings and the order of outputs do not
    count. Nor do allow_empty, valid_for, fingerprint and index: they say when to publish or to score again and how rows are
    found.
    """
    outputs = {
        output.name: output.model_dump(exclude_none=True, exclude={"name", "index"}) for output in pipeline.predictions
    }
    changes = pipeline.features.changes
    code = {
        name: pipeline_code.normal_code(pipeline.folder / name) for name in pipeline_code.files(pipeline.folder, "*.py")
    }
    return _digest(
        {
            "key": pipeline.entity.key,
            "entity": usersql.normalise(pipeline.entity.query.text),
            "features": _origin_of_features(pipeline),
            "changes": None if changes is None else usersql.normalise(changes.text),
            "preprocess": pipeline.features.preprocess,
            "time_invariant": pipeline.features.time_invariant,
            "predictions": outputs,
            "code": code,
            "files": {name: _file_digest(pipeline.folder, name) for name in further if name not in code},
        }
    )


def _origin_of_features(pipeline: Pipeline) -> object:
    if pipeline.features.query is not None:
        return usersql.normalise(pipeline.features.query.text)
    assert pipeline.features.dataset is not None
    return pipeline.features.dataset.model_dump(mode="json", exclude={"late_by", "warn_after", "fail_after"})


def contract_digest(pipeline: Pipeline) -> str:
    """Return the SHA-256, in hex, of everything declared that changes no prediction: limits, schedules, descriptions.

    Values count, not how they are written: ``36h`` and ``1d12h`` are the same, as are a default and its absence.
    """
    labels = None if pipeline.training is None else pipeline.training.labels
    tables = {
        key: getattr(pipeline, key).model_dump(mode="json")
        for key in ("model", "schedule", "serve", "logic", "drift", "performance", "coverage", "unknown", "manual")
    }
    if pipeline.archive is not None:  # one that is not declared leaves the digests of earlier runs as they are
        tables["archive"] = pipeline.archive.model_dump(mode="json")
    if pipeline.history is not None:
        tables["history"] = pipeline.history.model_dump(mode="json")
    if pipeline.retention.model_fields_set:
        tables["retention"] = pipeline.retention.model_dump(mode="json")
    if pipeline.features.dataset is not None:
        limits = {"late_by", "warn_after", "fail_after"}
        tables["dataset"] = pipeline.features.dataset.model_dump(mode="json", include=limits)
    training = None if pipeline.training is None else pipeline.training.model_dump(mode="json", exclude={"labels"})
    return _digest(
        {
            **tables,
            "description": pipeline.description,
            "allow_empty": pipeline.entity.allow_empty,
            "valid_for": pipeline.features.model_dump(mode="json", include={"valid_for", "ttl"}),
            **({"fingerprint": True} if pipeline.features.fingerprint else {}),
            "index": sorted(output.name for output in pipeline.predictions if output.index),
            "training": training,
            "labels": None if labels is None else usersql.normalise(labels.text),
            "sources": [source.model_dump(mode="json") for source in pipeline.sources],
            # Only where it is declared: where a run is scored was not always part of the contract.
            **({"execution": pipeline.execution.model_dump(mode="json")} if pipeline.execution.sharded else {}),
        }
    )


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_digest(folder: Path, name: str) -> str:
    """Return the digest of a further file of [logic]; SQL counts by its parse tree when it has one."""
    content = (folder / name).read_bytes()
    if name.endswith(".sql"):
        with contextlib.suppress(SqlInvalid, UnicodeDecodeError):
            content = usersql.normalise(content.decode("utf-8")).encode()
    return hashlib.sha256(content).hexdigest()
