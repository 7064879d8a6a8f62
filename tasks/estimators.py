"""The estimator's file: written the same way each time, and read without running what a stranger may have put in it.

skops files hold names of types instead of code. Only types that skops trusts, the few below and the pipeline's own are
ever imported, and the file has no say in which: its names are compared with ours. That stops code from running; it does
not make a crafted tree safe (its indices are not checked by scikit-learn), in this format or any other. Who may
register a model is a matter of database roles.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tasks.errors import ModelUnreadable, PickleNotTrusted, TypesRefused

Loader = Literal["skops", "pickle", "joblib"]

#: Types beyond skops's defaults that scikit-learn's own models need, each with the only kinds of skops node that may
#: name it: a function is never called, a type that is only compared with is never made.
_MODEL_TYPES: dict[str, frozenset[str]] = {
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": frozenset({"ObjectNode"}),
    "sklearn.tree._tree.Tree": frozenset({"TreeNode"}),
    "sklearn.neighbors._kd_tree.KDTree": frozenset({"ObjectNode", "TypeNode"}),
    "sklearn.neighbors._kd_tree.KDTree64": frozenset({"ObjectNode", "TypeNode"}),
    "sklearn.neighbors._ball_tree.BallTree": frozenset({"ObjectNode", "TypeNode"}),
    "sklearn.neighbors._ball_tree.BallTree64": frozenset({"ObjectNode", "TypeNode"}),
    "sklearn.metrics._dist_metrics.EuclideanDistance64": frozenset({"ObjectNode", "TypeNode"}),
    "sklearn.calibration._CalibratedClassifier": frozenset({"ObjectNode"}),
    "sklearn.calibration._SigmoidCalibration": frozenset({"ObjectNode"}),
    "sklearn.utils._bunch.Bunch": frozenset({"ObjectNode", "DictNode"}),
    "sklearn.compose._column_transformer.make_column_selector": frozenset({"ObjectNode"}),
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": frozenset({"ObjectNode"}),
    "sklearn.utils.validation.check_array": frozenset({"FunctionNode"}),
    "numpy.dtype": frozenset({"DTypeNode", "TypeNode"}),
    "numpy.number": frozenset({"TypeNode"}),
    # What make_column_selector(dtype_include=object) selects text columns by.
    "builtins.object": frozenset({"TypeNode"}),
    "collections.OrderedDict": frozenset({"DictNode", "TypeNode"}),
    "functools.partial": frozenset({"PartialNode"}),
    **{
        f"lightgbm.{name}": frozenset({"ObjectNode"})
        for name in ("sklearn.LGBMClassifier", "sklearn.LGBMRegressor", "sklearn.LGBMRanker", "basic.Booster")
    },
    **{
        f"xgboost.{name}": frozenset({"ObjectNode"})
        for name in (
            "sklearn.XGBClassifier",
            "sklearn.XGBRegressor",
            "sklearn.XGBRanker",
            "sklearn.XGBRFClassifier",
            "sklearn.XGBRFRegressor",
            "core.Booster",
        )
    },
}

#: The only function that a partial may hold: HistGradientBoosting keeps its category check this way.
_PARTIAL_OF = ("sklearn.utils.validation", "check_array")

#: Entries of a zip carry a date; ours carry the first one that zip can write, so that equal models are equal bytes.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An estimator read from its file."""

    estimator: Any
    #: scikit-learn version that fitted it, when that is not the running one (InconsistentVersionWarning).
    made_with: str | None


def save_estimator(estimator: Any) -> bytes:
    """Return an estimator as a skops file; the same fitted estimator gives the same bytes.

    Raises
    ------
    ModelUnreadable
        When skops cannot write a part of it.
    """
    import skops.io

    try:
        return _canonical(skops.io.dumps(estimator))
    except Exception as error:
        raise ModelUnreadable(
            f"{type(estimator).__name__} cannot be written as a skops file ({type(error).__name__})",
            "Use scikit-learn's own estimators and functions of the pipeline's model.py instead of lambdas, or save it "
            "with joblib and register that file with --trust-pickle.",
        ) from error


def load_estimator(data: bytes, loader: str, *, module: str | None, trusted_pickle: bool) -> Loaded:
    """Read an estimator from its file.

    Parameters
    ----------
    data
        The file's bytes, whose digest the caller has checked.
    loader
        skops, pickle or joblib.
    module
        ``prescore_pipelines.<name>`` of the pipeline whose own types may be loaded, already imported; None for none.
    trusted_pickle
        A person vouched for this file: without it no pickle is ever opened.

    Raises
    ------
    TypesRefused
        Naming every type that is not on the list, before any of them is imported.
    PickleNotTrusted
        For pickle and joblib files that nobody vouched for.
    ModelUnreadable
        When the file is damaged or of another kind.
    """
    if loader == "skops":
        return _watched(lambda: _load_skops(data, module))
    if loader not in ("pickle", "joblib"):
        raise ModelUnreadable(f"the bundle names the loader {loader!r}", "Register the model again.")
    if not trusted_pickle:
        raise PickleNotTrusted(loader)
    return _watched(lambda: _load_pickle(data, loader))


def kind_of_file(data: bytes) -> Loader:
    """Tell a skops file from a pickle or joblib file by its content; the name of a file proves nothing."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "schema.json" in archive.namelist():
                return "skops"
    # joblib reads plain pickles and compressed ones alike.
    return "joblib"


# Reading ---------------------------------------------------------------------------------------------------------


def _load_skops(data: bytes, module: str | None) -> Any:
    import skops.io

    schema = _read_schema(data)
    found = set(skops.io.get_untrusted_types(data=data))
    own = {name for name in found if _is_own(name, module)}
    refused = found - own - _MODEL_TYPES.keys()
    refused |= {node.name for node in _nodes(schema) if not _fits(node, module)}
    if refused:
        raise TypesRefused(sorted(refused))
    _refuse_object_arrays(data)
    return skops.io.loads(data, trusted=sorted(found))


def _load_pickle(data: bytes, loader: str) -> Any:
    if loader == "pickle":
        return pickle.loads(data)  # a person vouched for this file
    import joblib

    return joblib.load(io.BytesIO(data))


def _watched(load: Any) -> Loaded:
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = load()
        except (TypesRefused, ModelUnreadable):
            raise
        except (Exception, RecursionError) as error:
            raise ModelUnreadable(
                f"the model file cannot be read ({type(error).__name__})",
                "Register the model again from the file that it was saved to.",
            ) from error
    versions = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    made_with = str(versions[0].original_sklearn_version) if versions else None
    return Loaded(estimator=estimator, made_with=made_with)


@dataclass(frozen=True, kw_only=True)
class _Node:
    loader: str
    module: str
    type_name: str
    state: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.module}.{self.type_name}"


def _read_schema(data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            schema: dict[str, Any] = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ModelUnreadable("this is no skops file", "Save the model with skops.io.dump.") from error
    return schema


def _nodes(state: Any) -> Iterator[_Node]:
    """Yield every node that a skops schema names, wherever it hides."""
    waiting = [state]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "__loader__" in part:
                yield _Node(
                    loader=str(part["__loader__"]),
                    module=str(part.get("__module__")),
                    type_name=str(part.get("__class__")),
                    state=part,
                )
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _fits(node: _Node, module: str | None) -> bool:
    """Return whether a node that names one of our types names it in the way that fitted models do."""
    if node.module == "prescore_pipelines" or node.module.startswith("prescore_pipelines."):
        return _is_own_node(node, module)
    allowed = _MODEL_TYPES.get(node.name)
    if allowed is None:
        return True  # skops's own list decides
    if node.loader not in allowed:
        return False
    if node.loader == "PartialNode":
        function = node.state.get("content", {}).get("func", {})
        held = (function.get("__module__"), function.get("__class__"))
        return function.get("__loader__") == "FunctionNode" and held == _PARTIAL_OF
    return True


def _is_own(name: str, module: str | None) -> bool:
    return module is not None and name.startswith(module + ".")


def _is_own_node(node: _Node, module: str | None) -> bool:
    """Return whether a node names a class or function that the pipeline's own code defines.

    What model.py merely imports does not count: with ``from os import system`` in it, a file could call that.
    """
    if module is None or not (node.module == module or node.module.startswith(module + ".")):
        return False
    found = getattr(sys.modules.get(node.module), node.type_name, None)
    if getattr(found, "__module__", None) != node.module:
        return False
    if isinstance(found, type):
        return node.loader != "FunctionNode"
    return callable(found) and node.loader == "FunctionNode"


def _refuse_object_arrays(data: bytes) -> None:
    """Refuse arrays of Python objects among the .npy members: numpy would unpickle them.

    skops reads with ``allow_pickle=False`` and so would fail too; this says it before anything is made.
    """
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if not name.endswith(".npy"):
                continue
            with archive.open(name) as member:
                first = np.lib.format.read_magic(member) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
                if read(member)[2].hasobject:
                    raise TypesRefused(["numpy array of pickled objects"])


# Writing ---------------------------------------------------------------------------------------------------------


def _canonical(data: bytes) -> bytes:
    """Return a skops file without what is chance in it: object ids, file names, dates, the order of sets."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        renaming = _Renaming(ids={}, files={})
        renamed = renaming.apply(schema)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
            for old, new in renaming.files.items():
                target.writestr(zipfile.ZipInfo(new, ZIP_EPOCH), archive.read(old))
            text = json.dumps(renamed, separators=(",", ":"))
            target.writestr(zipfile.ZipInfo("schema.json", ZIP_EPOCH), text)
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Renaming:
    """Numbers for the ids and files of a skops schema, in the order in which it names them."""

    ids: dict[int, int]
    files: dict[str, str]

    def apply(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self.apply(entry) for entry in part]
        if not isinstance(part, dict):
            return part
        loader = part.get("__loader__")
        made: dict[str, Any] = {}
        for key, value in part.items():
            if loader is not None and key == "__id__":
                # Which equal numbers and texts are one object is chance, and means nothing for them.
                if loader != "JsonNode":
                    made[key] = self.ids.setdefault(value, len(self.ids) + 1)
            elif loader is not None and key == "file":
                ending = value.rsplit(".", 1)[-1]
                made[key] = self.files.setdefault(value, f"{len(self.files) + 1}.{ending}")
            elif loader == "SetNode" and key == "content":
                made[key] = self.apply(sorted(value, key=_without_ids))
            else:
                made[key] = self.apply(value)
        return made


def _without_ids(part: Any) -> str:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(held) for key, held in value.items() if key != "__id__"}
        return [strip(held) for held in value] if isinstance(value, list) else value

    return json.dumps(strip(part), sort_keys=True)
