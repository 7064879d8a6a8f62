"""Whatever stands in a model file, nothing of it is executed unless a person vouched for it: it is refused by name."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
import tracemalloc
import types
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tasks.bundle import Bundle
from tasks.bundle_file import dumps, loads
from tasks.columns import Column
from tasks.errors import ModelUnreadable, PickleNotTrusted, PrescoreError, TypesRefused
from tasks.estimators import kind_of_file, load_estimator
from tasks.pipeline import Output
from tasks.probes import create_bundle
from tests.malicious import OWN, PICKLES, SKOPS, Call, Crafted, Trap, bomb, lying_bomb, own_code, trap, zipped


@pytest.fixture
def caught(tmp_path: Path) -> Iterator[Trap]:
    with trap(tmp_path / "trap") as made:
        yield made


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the package of a pipeline whose model.py has been imported."""
    package, module = types.ModuleType("prescore_pipelines.churn"), own_code()
    package.model = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, OWN, module)
    return package.__name__


def refused(caught: Trap, attempt: Callable[[], Any]) -> PrescoreError:
    """Try to load, and require that it is refused in words and that nothing was executed."""
    with caught.watched(), pytest.raises(PrescoreError) as refusal:
        attempt()
    assert caught.traces == []
    message = str(refusal.value)
    assert "no model was registered or replaced" in message.lower()
    assert message.isprintable()
    return refusal.value


def kind(crafted: Crafted) -> str:
    return crafted.name


def test_there_are_many_kinds() -> None:
    assert len(PICKLES) + len(SKOPS) >= 80
    assert len({crafted.name for crafted in [*PICKLES, *SKOPS]}) == len(PICKLES) + len(SKOPS)


@pytest.mark.parametrize("crafted", PICKLES, ids=kind)
def test_pickle_is_never_opened_unless_a_person_vouched_for_it(crafted: Crafted, caught: Trap) -> None:
    data = crafted.make(caught)
    assert kind_of_file(data) == "joblib"
    for loader in ("pickle", "joblib"):
        error = refused(caught, partial(load_estimator, data, loader, module=None, trusted_pickle=False))
        assert isinstance(error, PickleNotTrusted)
        assert crafted.said in str(error)
    # What the manifest of a bundle calls it does not help it.
    error = refused(caught, partial(load_estimator, data, "skops", module=None, trusted_pickle=True))
    assert "is no skops file" in str(error)

    assert crafted.opener is not None
    assert caught.spring(partial(crafted.opener, data))


@pytest.mark.parametrize("crafted", SKOPS, ids=kind)
def test_crafted_skops_file_is_refused_by_name(crafted: Crafted, caught: Trap, own: str) -> None:
    data = crafted.make(caught)
    for module in (own, None):
        error = refused(caught, partial(load_estimator, data, "skops", module=module, trusted_pickle=False))
        assert isinstance(error, TypesRefused | ModelUnreadable)
        if module == own:
            assert re.search(crafted.said, str(error))
    if crafted.opener is not None:
        assert caught.spring(partial(crafted.opener, data))


@pytest.mark.parametrize("name", ["a zip bomb", "a zip bomb that lies", "an array of a trillion numbers"])
def test_what_would_expand_to_too_much_is_never_expanded(name: str, caught: Trap) -> None:
    data = next(crafted for crafted in SKOPS if crafted.name == name).make(caught)
    tracemalloc.start()
    try:
        refused(caught, partial(load_estimator, data, "skops", module=None, trusted_pickle=False))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6  # the bombs hold 70 million bytes


def test_file_names_only_ten_of_a_thousand_types() -> None:
    error = TypesRefused([f"module.type_{n}" + "x" * 1000 for n in range(1000)])
    assert len(str(error)) < 2000
    assert "and 990 more" in str(error)


def test_models_that_are_compressed_or_hold_generators_load_as_before() -> None:
    frame = np.random.default_rng(3).normal(size=(60, 2))
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2)).fit(frame, frame[:, 0] > 0)
    data = skops.io.dumps(model, compression=zipfile.ZIP_DEFLATED, compresslevel=9)
    again = load_estimator(data, "skops", module=None, trusted_pickle=False).estimator
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))


# Bundles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    rows = pa.table({"a": [float(n) for n in range(40)], "b": [float(n % 7) for n in range(40)]})
    frame = rows.to_pandas()
    made, _ = create_bundle(
        name="churn",
        estimator=LogisticRegression().fit(frame, frame["a"] > 20),
        key=(),
        features=tuple(Column(name=name, postgres_type="double precision") for name in ("a", "b")),
        outputs=(Output.model_validate({"name": "p", "method": "predict_proba", "class": "true"}),),
        preprocess=None,
        sample=rows,
        train_data_until=datetime(2024, 3, 1, tzinfo=UTC),
        metrics={},
        logic_digest=None,
    )
    return made


def packed(bundle: Bundle, **changed: bytes) -> bytes:
    """A bundle some of whose members were replaced: ``golden_arrow`` for golden.arrow."""
    with zipfile.ZipFile(io.BytesIO(dumps(bundle))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped([(name, changed.get(name.replace(".", "_"), content)) for name, content in members.items()])


def manifest(bundle: Bundle, **changed: Any) -> bytes:
    with zipfile.ZipFile(io.BytesIO(dumps(bundle))) as archive:
        return json.dumps({**json.loads(archive.read("manifest.json")), **changed}).encode()


def pickled_table(caught: Trap) -> bytes:
    """An Arrow table whose column says that it is of a type that old Arrow unpickled."""
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Call(os.system, caught.command)),
    }
    schema = pa.schema([pa.field("a", pa.float64(), metadata=metadata)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.table([pa.array([1.0])], schema=schema))
    return bytes(sink.getvalue())


def test_bundle_that_says_it_is_a_pickle_needs_the_trust_of_the_registry(bundle: Bundle, caught: Trap) -> None:
    evil = PICKLES[0].make(caught)
    for loader in ("joblib", "pickle"):
        data = packed(bundle, estimator=evil, manifest_json=manifest(bundle, loader=loader))
        assert isinstance(refused(caught, partial(loads, data)), PickleNotTrusted)


@pytest.mark.parametrize("loader", ["skops", "exec", ["joblib"], None, 7])
def test_bundle_with_a_pickle_in_the_place_of_its_estimator_is_refused(bundle, caught, loader) -> None:
    evil = PICKLES[0].make(caught)
    data = packed(bundle, estimator=evil, manifest_json=manifest(bundle, loader=loader))
    for trusted in (False, True):
        assert isinstance(refused(caught, partial(loads, data, trusted_pickle=trusted)), ModelUnreadable)


@pytest.mark.parametrize(
    "changed",
    [
        {"manifest_json": b"[]"},
        {"manifest_json": b"[" * 100_000},
        {"manifest_json": b"\xff"},
        {"manifest_json": b'{"format": 1}'},
        {"manifest_json": b'{"format": "\\u001b]0;"}'},
        {"profile_json": b"not JSON"},
        {"golden_arrow": b""},
        {"golden_arrow": pickle.dumps([1])},
        {"golden_outputs_arrow": b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 4},
    ],
    ids=["a list", "deep", "no text", "little", "another format", "no profile", "no table", "a pickle", "a huge table"],
)
def test_bundle_with_broken_evidence_is_refused_in_words(
    bundle: Bundle, caught: Trap, changed: dict[str, bytes]
) -> None:
    assert isinstance(refused(caught, partial(loads, packed(bundle, **changed))), ModelUnreadable)


def test_bundle_that_would_expand_to_too_much_or_hides_members_is_refused(bundle: Bundle, caught: Trap) -> None:
    good = packed(bundle)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for data, said in [
        (zipped([*members, ("estimator", PICKLES[0].make(caught))]), "estimator more than once"),
        (zipped([*members, ("../estimator", b"")]), "which is a path"),
        (zipped(members[1:]), f"it lacks {members[0][0]}"),
        (lying_bomb("manifest.json"), "it lacks"),
        (good[:-30], "is damaged|it lacks"),
    ]:
        assert re.search(said, str(refused(caught, partial(loads, data))))


def test_bundle_that_expands_to_gigabytes_is_refused_before_it_does(bundle, caught, monkeypatch) -> None:
    monkeypatch.setattr("tasks.bundle_file.MOST_EXPANDED", 2**20)
    data = bomb("estimator")
    assert "73,400,320 bytes" in str(refused(caught, partial(loads, data)))
    # One that would not be read again is not written either.
    huge = replace(bundle, estimator_file=bytes(70 * 2**20))
    assert "would expand to" in str(refused(caught, partial(dumps, huge)))


def test_tables_of_a_bundle_cannot_bring_pickled_types(bundle: Bundle, caught: Trap) -> None:
    with caught.watched():
        again = loads(packed(bundle, golden_arrow=pickled_table(caught)))
        again.golden.to_pandas()
    assert caught.traces == []
