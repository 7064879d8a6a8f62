"""The estimator's file: written the same way each time, and read without running what a stranger may have put in it.

skops files hold names of types instead of code. Only types that skops trusts, those of model_types.py and the
pipeline's own are ever imported, and the file has no say in which: its names are compared with ours. That stops code
from running; it does not make a crafted tree safe (its indices are not checked by scikit-learn), in this format or any
other. Who may register a model is a matter of database roles.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.archives import ZIP_EPOCH, is_archive
from tasks.errors import ModelUnreadable, PickleNotTrusted, PrescoreError, TypesRefused, printable
from tasks.model_types import MODEL_TYPES, PARTIAL_OF, why_refused
from tasks.skops_files import Node, read_skops, refuse_object_arrays

Loader = Literal["skops", "pickle", "joblib"]

#: The kinds of skops node that fitted models are written with. Left out are bound methods, operators and what only
#: older files have: they look names up that no list holds.
_KINDS = frozenset(
    {
        *("DictNode", "DefaultDictNode", "ListNode", "SetNode", "TupleNode", "SliceNode", "JsonNode"),
        *("BytesNode", "BytearrayNode", "NdArrayNode", "MaskedArrayNode", "DTypeNode", "SparseMatrixNode"),
        *("ObjectNode", "ConstructorFromReduceNode", "TypeNode", "FunctionNode", "PartialNode"),
        *("TreeNode", "LossNode", "RandomStateNode", "RandomGeneratorNode"),
    }
)

#: How a class of the pipeline's own code may be named: in ways that never call it with what the file says.
_OWN_TYPE_KINDS = frozenset({"ObjectNode", "TypeNode", "DictNode", "TupleNode"})

#: Types that a dictionary's keys may have, beside numpy's numbers: they are called with the key.
_KEY_TYPES = frozenset({"builtins.str", "builtins.int", "builtins.float", "builtins.bool"})

#: numpy's bit generators, as a skops file names them. HistGradientBoosting keeps one.
_BIT_GENERATORS = frozenset(json.dumps(name) for name in ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"))


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


def load_estimator(
    data: bytes, loader: str, *, module: str | None, trusted_pickle: bool, former: Sequence[str] = ()
) -> Loaded:
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
    former
        Other names of ``module``, from before the pipeline was renamed; they are taken for it. Pickles cannot be read so.

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
        return _watched(lambda: _load_skops(data, module, former))
    if loader not in ("pickle", "joblib"):
        raise ModelUnreadable(f"the bundle names the loader {printable(str(loader))}", "Register the model again.")
    if not trusted_pickle:
        raise PickleNotTrusted(loader)
    return _watched(lambda: _load_pickle(data, loader))


def kind_of_file(data: bytes) -> Loader:
    """Tell a skops file from a pickle or joblib file by its content; the name of a file proves nothing.

    Raises
    ------
    ModelUnreadable
        When it is empty, or in the format of another framework.
    """
    if not data:
        raise ModelUnreadable("the model file is empty", "Save the model again.")
    framework = next((name for start, name in _OTHER_FORMATS.items() if data.startswith(start)), None)
    if framework is not None:
        raise ModelUnreadable(
            f"the model file is {framework}, no scikit-learn estimator",
            "Save an estimator with scikit-learn's interface (LightGBM and XGBoost have such classes) with skops.io.dump, "
            "or write one in the pipeline's model.py that holds what this model has learned.",
        )
    # joblib reads plain pickles and compressed ones alike; no zip is one of them.
    return "skops" if is_archive(data) else "joblib"


#: How files of other frameworks begin. No pickle and no compression that joblib writes begins so.
_OTHER_FORMATS = {
    b"\x89HDF": "an HDF5 file such as Keras writes",
    b'{"': "a JSON file such as XGBoost writes",
    b"{L": "a file of XGBoost's own",
    b"tree\nversion=": "a text file of LightGBM's own",
    b"CBM1": "a CatBoost file",
    b"<?xml": "an XML file such as PMML",
}

# Reading ---------------------------------------------------------------------------------------------------------


def _load_skops(data: bytes, module: str | None, former: Sequence[str] = ()) -> Any:
    import skops.io

    file = read_skops(data)
    if module is not None and former:
        file = read_skops(_with_module(file.data, module, former))
    misused = [node for node in file.nodes if not _fits(node, module)]
    try:
        found = set(skops.io.get_untrusted_types(data=file.data))
    except Exception:
        if not misused:
            raise
        found = set()
    own = {name for name in found if _is_own(name, module)}
    refused = found - own - MODEL_TYPES.keys()
    refused |= {_complaint(node) for node in misused if not refused & {node.name, *_odd_keys(node)}}
    if refused:
        raise TypesRefused(sorted(refused), why_refused({*refused, *(node.name for node in misused)}))
    refuse_object_arrays(file)
    return skops.io.loads(file.data, trusted=sorted(found))


def _with_module(data: bytes, module: str, former: Sequence[str]) -> bytes:
    """Return a skops file that was looked at, with the names of a package's modules as they are now."""
    renamed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(renamed, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name == "schema.json":
                for old in former:
                    content = content.replace(f'"{old}.'.encode(), f'"{module}.'.encode())
            after.writestr(name, content)
    return renamed.getvalue()


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
        except PrescoreError:
            raise
        except (Exception, RecursionError) as error:
            raise ModelUnreadable(
                f"the model file cannot be read ({type(error).__name__})",
                "Register the model again from the file that it was saved to.",
            ) from error
    versions = [w.message for w in caught if isinstance(w.message, InconsistentVersionWarning)]
    made_with = str(versions[0].original_sklearn_version) if versions else None
    return Loaded(estimator=estimator, made_with=made_with)


def _fits(node: Node, module: str | None) -> bool:
    """Return whether a node is of a kind that fitted models have, and names one of our types in the way they do."""
    if node.loader not in _KINDS or not node.type_name.isidentifier():
        return False
    allowed = MODEL_TYPES.get(node.name)
    if allowed is not None and node.loader not in allowed:
        return False  # of types beyond ours skops's own list decides
    claims_own = node.module == "prescore_pipelines" or node.module.startswith("prescore_pipelines.")
    if claims_own and not _is_own_node(node, module):
        return False
    holds = {
        "DictNode": lambda node: not _odd_keys(node),
        "JsonNode": lambda node: node.name == "builtins.str",  # whatever the value is
        "SliceNode": _has_plain_bounds,
        "PartialNode": _is_known_partial,
        "RandomGeneratorNode": _is_known_generator,
    }
    return node.loader not in holds or holds[node.loader](node)


def _complaint(node: Node) -> str:
    """Name what a node that does not fit asks for."""
    odd = _odd_keys(node)
    return f"dictionary keys made by {', '.join(odd)}" if odd else f"{node.name} (as {node.loader})"


def _has_plain_bounds(node: Node) -> bool:
    bounds = node.state.get("content", {})
    return all(bounds.get(name) is None or type(bounds[name]) is int for name in ("start", "stop", "step"))


def _odd_keys(node: Node) -> list[str]:
    """Return what makes the keys, if it is a dictionary, beside types of plain values: skops calls what is named there."""
    if node.loader != "DictNode":
        return []
    types = node.state.get("key_types")
    content = types.get("content") if isinstance(types, dict) and types.get("__loader__") == "ListNode" else None
    if not isinstance(content, list) or not all(isinstance(key, dict) for key in content):
        return ["no list of types"]
    makers = [Node.from_state(key) for key in content]
    return [maker.name for maker in makers if maker.loader != "TypeNode" or not _makes_plain_values(maker.name)]


def _makes_plain_values(name: str) -> bool:
    return name in _KEY_TYPES or (name.startswith("numpy.") and name not in MODEL_TYPES)


def _is_known_partial(node: Node) -> bool:
    """Return whether a partial holds one of the few functions that it may."""
    function = node.state.get("content", {}).get("func", {})
    held = f"{function.get('__module__')}.{function.get('__class__')}"
    return function.get("__loader__") == "FunctionNode" and held in PARTIAL_OF


def _is_known_generator(node: Node) -> bool:
    """Return whether a random generator is one of numpy's, and of the size they have: skops calls what is named there."""
    content = node.state.get("content", {})
    kind = content.get("bit_generator", {}).get("content", {}).get("bit_generator", {}).get("content")
    seeds = content.get("seed_seq", {}).get("content", {})
    return kind in _BIT_GENERATORS and seeds.get("pool_size", {}).get("content", "4") == "4"


def _is_own(name: str, module: str | None) -> bool:
    return module is not None and name.startswith(module + ".")


def _is_own_node(node: Node, module: str | None) -> bool:
    """Return whether a node names a class or function that the pipeline's own code defines.

    What model.py merely imports does not count: with ``from os import system`` in it, a file could call that.
    """
    if module is None or not (node.module == module or node.module.startswith(module + ".")):
        return False
    found = getattr(sys.modules.get(node.module), node.type_name, None)
    if getattr(found, "__module__", None) != node.module:
        return False
    if isinstance(found, type):
        return node.loader in _OWN_TYPE_KINDS
    return callable(found) and node.loader == "FunctionNode"


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
