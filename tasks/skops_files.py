"""The skops file as it lies on a disk: a zip with a schema of nodes and the arrays that they name.

Everything here looks without making anything. A schema can say one thing to who checks it and another to who builds
from it: by naming one id twice, by an older protocol that keeps names elsewhere, by members that nothing names. Such
files are refused as a whole, so that what was checked is what is built.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from tasks.archives import is_archive, open_archive, read_member, unpacked
from tasks.errors import ModelUnreadable, TypesRefused, printable

if TYPE_CHECKING:
    import numpy as np

SCHEMA = "schema.json"

WHAT = "the model file"

#: Protocol 0 (skops before 0.5) keeps the name of a function in another place than every other node.
OLDEST_PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class Node:
    """One object that a skops schema asks for."""

    #: Which kind of skops node reads it.
    loader: str
    module: str
    type_name: str
    #: All that the schema says of it.
    state: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the type or function, as skops puts it together."""
        return f"{self.module}.{self.type_name}"

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Node:
        """Return what a part of a schema asks for."""
        return cls(
            loader=str(state.get("__loader__")),
            module=str(state.get("__module__")),
            type_name=str(state.get("__class__")),
            state=state,
        )


@dataclass(frozen=True, kw_only=True)
class SkopsFile:
    """A skops file whose schema is of one piece; nothing of it was made yet."""

    #: The file with nothing compressed in it.
    data: bytes
    schema: dict[str, Any]
    nodes: tuple[Node, ...]


def read_skops(data: bytes) -> SkopsFile:
    """Read the schema of a skops file.

    Raises
    ------
    ModelUnreadable
        When it is none, is damaged, or its schema and its members do not belong together.
    """
    if not is_archive(data):
        raise ModelUnreadable(f"{WHAT} is no skops file", _SAVE)
    data = unpacked(data, WHAT)
    with open_archive(data, WHAT) as archive:
        names = set(archive.namelist())
        if SCHEMA not in names:
            raise ModelUnreadable(f"{WHAT} is a zip without {SCHEMA}: no skops file", _SAVE)
        schema = _read_schema(read_member(archive, SCHEMA))
    _require_protocol(schema)
    _require_one_meaning(schema)
    nodes = tuple(_nodes(schema))
    _require_members(nodes, names - {SCHEMA})
    return SkopsFile(data=data, schema=schema, nodes=nodes)


def refuse_object_arrays(file: SkopsFile) -> None:
    """Refuse arrays of pickled objects, and arrays that claim to be larger than what is there of them.

    skops and scipy read with ``allow_pickle=False`` and would fail too; this says it before anything is made, and
    before memory is asked for.

    Raises
    ------
    TypesRefused, ModelUnreadable
    """
    with open_archive(file.data, WHAT) as archive:
        for node in file.nodes:
            name = node.state.get("file")
            if name is None:
                continue
            if node.loader == "NdArrayNode":
                with archive.open(name) as member:
                    _check_array(member, archive.getinfo(name).file_size, name)
            elif node.loader == "SparseMatrixNode":
                _check_sparse(read_member(archive, name), name)


_SAVE = "Save the model with skops.io.dump."


def _read_schema(text: bytes) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelUnreadable(f"the {SCHEMA} of {WHAT} is no JSON ({type(error).__name__})", _SAVE) from error
    if not isinstance(schema, dict):
        raise ModelUnreadable(f"the {SCHEMA} of {WHAT} holds no object", _SAVE)
    return schema


def _require_protocol(schema: dict[str, Any]) -> None:
    protocol = schema.get("protocol")
    if type(protocol) is not int or protocol < OLDEST_PROTOCOL:
        shown = protocol if type(protocol) is int else "no number"
        raise ModelUnreadable(
            f"{WHAT} has the skops protocol {shown}, those from {OLDEST_PROTOCOL} on are read",
            "Load it with the skops that wrote it, and save it with a newer one.",
        )


def _require_one_meaning(schema: dict[str, Any]) -> None:
    """Require that an id means one thing.

    skops builds the first node of an id and takes it for every later one, whatever that one says of itself. In a file
    that skops wrote, nodes of one id are one object and say the same.
    """
    of_id: dict[int, list[dict[str, Any]]] = {}
    for part in _objects(schema):
        if "__id__" in part:
            number = part["__id__"]
            if "__loader__" not in part or type(number) is not int:
                raise _hidden()
            of_id.setdefault(number, []).append(part)
    known: dict[int, bytes] = {}
    for parts in of_id.values():
        if len(parts) > 1 and len({_fingerprint(part, known) for part in parts}) > 1:
            raise _hidden()


def _hidden() -> ModelUnreadable:
    return ModelUnreadable(
        f"the schema of {WHAT} gives one id to several things, so that one of them is hidden",
        "No program writes such a file by accident: find out where it comes from.",
    )


def _fingerprint(part: Any, known: dict[int, bytes]) -> bytes:
    """Return a digest of a part of the schema without its ids and file names; ``known`` has those of parts, by address."""
    if isinstance(part, list):
        return _digest([b"list", *(_fingerprint(entry, known) for entry in part)])
    if not isinstance(part, dict):
        return _digest([b"value", json.dumps(part).encode()])
    if id(part) in known:
        return known[id(part)]
    is_node = "__loader__" in part
    said = [b"node" if is_node else b"dict"]
    for key in sorted(part):
        if not (is_node and key in ("__id__", "file")):
            said += [key.encode("utf-8", "surrogatepass"), _fingerprint(part[key], known)]
    found = known[id(part)] = _digest(said)
    return found


def _digest(parts: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _nodes(schema: dict[str, Any]) -> Iterator[Node]:
    """Yield every node that a schema names, wherever it hides."""
    return (Node.from_state(part) for part in _objects(schema) if "__loader__" in part)


def _objects(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every object of a schema, itself first."""
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _require_members(nodes: tuple[Node, ...], there: set[str]) -> None:
    named = {node.state["file"] for node in nodes if isinstance(node.state.get("file"), str)}
    if any("file" in node.state and not isinstance(node.state["file"], str) for node in nodes) or not named <= there:
        raise ModelUnreadable(f"{WHAT} lacks members that its schema names", "Copy it again, or save the model again.")
    if named != there:
        raise ModelUnreadable(
            f"{WHAT} holds {printable(min(there - named))}, which its schema does not name",
            "No program writes such a file by accident: find out where it comes from.",
        )


def _check_array(member: IO[bytes], size: int, name: str) -> None:
    """Refuse a .npy file of ``size`` bytes that holds pickled objects, or claims more than its bytes."""
    try:
        shape, dtype = _read_header(member)
    except Exception as error:  # numpy's parser of a stranger's header
        raise ModelUnreadable(
            f"{printable(name)} in {WHAT} is no numpy array ({type(error).__name__})", "Save the model again."
        ) from error
    if dtype.hasobject:
        raise TypesRefused(["numpy array of pickled objects"])
    claimed = math.prod(shape) * max(dtype.itemsize, 1)
    if claimed > size:
        raise ModelUnreadable(
            f"{printable(name)} in {WHAT} claims an array of {claimed:,} bytes, {size:,} are there",
            "Save the model again.",
        )


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of a .npy file.

    A model of a hundred trees has three hundred arrays of a few dtypes. A header as numpy writes it is read without having Python
    parse it: 6 ms for such a model, 36 with numpy's own reading. Any other is left to numpy.
    """
    import numpy as np

    version = np.lib.format.read_magic(member)
    size = member.read(2 if version == (1, 0) else 4)
    header = member.read(int.from_bytes(size, "little"))
    usual = _USUAL_HEADER.fullmatch(header)
    if version == (1, 0) and usual is not None:
        return tuple(int(length) for length in usual["shape"].split(b",") if length), _dtype_of(usual["dtype"])
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(BytesIO(size + header))
    return shape, dtype


#: The header of a .npy file as numpy writes it, of numbers or of a record of numbers.
_USUAL_HEADER = re.compile(
    rb"\{'descr': (?P<dtype>'[<>|][biufc]\d+'|\[(?:\('\w+', '[<>|][biufc]\d+'\)(?:, )?)+\]), "
    rb"'fortran_order': (?:True|False), 'shape': \((?P<shape>(?:\d+(?:, \d+)*,?)?)\), \} *\n"
)


@lru_cache(maxsize=64)
def _dtype_of(description: bytes) -> np.dtype[Any]:
    """Return the dtype that a header describes."""
    import numpy as np

    return np.lib.format.descr_to_dtype(ast.literal_eval(description.decode("ascii")))


def _check_sparse(data: bytes, name: str) -> None:
    """Refuse a sparse matrix whose arrays would be refused: it is a zip of .npy files."""
    with open_archive(data, f"{printable(name)} in {WHAT}") as archive:
        for entry in archive.infolist():
            with archive.open(entry) as member:
                _check_array(member, entry.file_size, entry.filename)


__all__ = ["Node", "SkopsFile", "read_skops", "refuse_object_arrays"]
