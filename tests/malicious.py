"""Crafted model files, made here byte by byte, and the trap that tells whether anything of one was executed.

Every file would leave a trace if it were opened: a file, a variable of the environment, a module that was imported, a
connection, or an event of Python's own audit. Those marked live are opened by their tests on purpose, too: a crafted
file that could not hurt anybody would prove nothing.
"""

from __future__ import annotations

import copyreg
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import skops.io
from joblib.numpy_pickle_compat import NDArrayWrapper
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

#: A module that only a crafted file names; importing it leaves a trace.
MODULE = "prescore_trap"
VARIABLE = "PRESCORE_TRAP"
#: The pipeline whose own code a crafted file abuses.
OWN = "prescore_pipelines.churn.model"
EXTENSION = 240

_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
#: Happen all the time; of interest where they concern the trap.
_NAMED_EVENTS = ("import", "open", "os.putenv")
_recording: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _recording:
        return
    if event in _EVENTS or (event in _NAMED_EVENTS and MODULE in str(arguments[0]).lower()):
        _recording[-1].append(event)


sys.addaudithook(_audit)


@dataclass
class Trap:
    """Where crafted files leave their traces."""

    folder: Path
    #: Listens; nobody has a reason to connect.
    listener: socket.socket
    events: list[str] = field(default_factory=list)

    @property
    def mark(self) -> Path:
        """The file that a command of a crafted file makes."""
        return self.folder / "sprung"

    @property
    def command(self) -> str:
        """A shell command that leaves a trace."""
        return f"touch {self.mark}"

    @property
    def code(self) -> str:
        """A Python expression that leaves a trace."""
        return f"__import__('os').system({self.command!r})"

    @property
    def traces(self) -> list[str]:
        """What was executed."""
        found = [f"event {event}" for event in self.events]
        found += [f"file {path.name}" for path in self.folder.iterdir() if path.suffix != ".py"]
        found += [f"variable {VARIABLE}"] if VARIABLE in os.environ else []
        return found + [f"module {name}" for name in sys.modules if name.startswith(MODULE)]

    def spring(self, open_file: Callable[[], Any]) -> list[str]:
        """Do what a careless program does with a crafted file, and return what it executed beyond being opened."""
        # What it raises once it did its work is of no interest.
        with self.watched(), suppress(Exception):
            open_file()
        return [trace for trace in self.traces if trace != "event pickle.find_class"]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Record what happens in this block."""
        _recording.append(self.events)
        try:
            yield
        finally:
            _recording.pop()


@contextmanager
def trap(folder: Path) -> Iterator[Trap]:
    """Set a trap in an empty folder, and take away afterwards what it caught."""
    folder.mkdir()
    (folder / f"{MODULE}.py").write_text(
        f"import os\nos.environ[{VARIABLE!r}] = '1'\n"
        "class Thing:\n    def __init__(self, *given): pass\n    def __setstate__(self, state): pass\n"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        yield Trap(folder, listener)
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)
        os.environ.pop(VARIABLE, None)
        listener.close()


@dataclass(frozen=True)
class Crafted:
    """One kind of crafted file."""

    name: str
    make: Callable[[Trap], bytes]
    #: What the refusal says of it, a regular expression.
    said: str
    #: What a careless program would open it with; None where nothing here opens it that far.
    opener: Callable[[bytes], Any] | None


# Pickles -----------------------------------------------------------------------------------------------------------


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def _pickled(protocol: int) -> Callable[[Trap], bytes]:
    return lambda trap: pickle.dumps(Call(os.system, trap.command), protocol)


def _text(value: str) -> bytes:
    return b"V" + value.encode("raw_unicode_escape") + b"\n"


def _short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def _build(trap: Trap) -> bytes:
    # A namespace is given a __setstate__ that is os.system, and then a state that is the command.
    state = b"}" + _text("__setstate__") + b"cos\nsystem\ns"
    return b"\x80\x02ctypes\nSimpleNamespace\n)R" + state + b"b" + _text(trap.command) + b"b."


def _extension(trap: Trap) -> bytes:
    return b"\x80\x02\x82" + bytes([EXTENSION]) + _text(trap.command) + b"\x85R."


def _with_extension(data: bytes) -> Any:
    copyreg.add_extension("os", "system", EXTENSION)
    try:
        return pickle.loads(data)
    finally:
        copyreg.remove_extension("os", "system", EXTENSION)


def _object_array(trap: Trap) -> np.ndarray:
    return np.array([Call(os.system, trap.command), 1], dtype=object)


def _npy(array: np.ndarray, *, allow_pickle: bool = True) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def _load_npy(data: bytes) -> Any:
    return np.load(io.BytesIO(data), allow_pickle=True)


def _joblib(held: Callable[[Trap], Any], **given: Any) -> Callable[[Trap], bytes]:
    def make(trap: Trap) -> bytes:
        out = io.BytesIO()
        joblib.dump(held(trap), out, **given)
        return out.getvalue()

    return make


def _load_joblib(data: bytes) -> Any:
    return joblib.load(io.BytesIO(data))


def _call(trap: Trap) -> Any:
    return Call(os.system, trap.command)


def _memory_map(trap: Trap) -> Any:
    # joblib reads the array from a file beside the pickle, by the name that the pickle gives.
    return NDArrayWrapper(f"../{MODULE}.npy", np.ndarray, True)


def _model_with_a_call(trap: Trap) -> Any:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.coef_ = {"array": np.zeros((200, 200)), "call": Call(os.system, trap.command)}
    return model


def _connect(trap: Trap) -> bytes:
    return pickle.dumps(Call(socket.create_connection, trap.listener.getsockname()))


def _polyglot(trap: Trap) -> bytes:
    """A pickle in front, a skops file behind: zip readers look from the end."""
    return pickle.dumps(Call(os.system, trap.command)) + skops.io.dumps(LogisticRegression())


_UNOPENED = "It was not opened"

PICKLES = [
    *(Crafted(f"REDUCE, protocol {n}", _pickled(n), _UNOPENED, pickle.loads) for n in range(6)),
    Crafted(
        "REDUCE, subprocess.Popen", lambda t: pickle.dumps(Call(subprocess.Popen, ["true"])), _UNOPENED, pickle.loads
    ),
    Crafted("REDUCE, eval", lambda t: pickle.dumps(Call(eval, t.code)), _UNOPENED, pickle.loads),
    Crafted("REDUCE, exec", lambda t: pickle.dumps(Call(exec, t.code)), _UNOPENED, pickle.loads),
    Crafted("REDUCE, a connection", _connect, _UNOPENED, pickle.loads),
    Crafted("REDUCE, an import", lambda t: pickle.dumps(Call(__import__, MODULE)), _UNOPENED, pickle.loads),
    Crafted("BUILD", _build, _UNOPENED, pickle.loads),
    Crafted("NEWOBJ", lambda t: f"\x80\x02c{MODULE}\nThing\n)\x81.".encode("latin-1"), _UNOPENED, pickle.loads),
    Crafted("INST", lambda t: b"(" + _text(t.command) + b"ios\nsystem\n.", _UNOPENED, pickle.loads),
    Crafted("OBJ", lambda t: b"(csubprocess\nPopen\n" + _text("true") + b"o.", _UNOPENED, pickle.loads),
    Crafted(
        "STACK_GLOBAL",
        lambda t: b"\x80\x04" + _short("os") + _short("system") + b"\x93" + _text(t.command) + b"\x85R.",
        _UNOPENED,
        pickle.loads,
    ),
    Crafted("EXT", _extension, _UNOPENED, _with_extension),
    Crafted("an object array", lambda t: pickle.dumps(_object_array(t)), _UNOPENED, pickle.loads),
    Crafted("an object array as .npy", lambda t: _npy(_object_array(t)), _UNOPENED, _load_npy),
    Crafted("a pickle with a skops file behind it", _polyglot, _UNOPENED, pickle.loads),
    Crafted("joblib", _joblib(_call), _UNOPENED, _load_joblib),
    *(
        Crafted(f"joblib, {kind}", _joblib(_call, compress=(kind, 3)), _UNOPENED, _load_joblib)
        for kind in ("zlib", "gzip", "bz2", "lzma", "xz")
    ),
    Crafted("joblib, arrays", _joblib(_model_with_a_call), _UNOPENED, _load_joblib),
    Crafted("joblib, an object array", _joblib(_object_array), _UNOPENED, _load_joblib),
    Crafted("joblib, a file beside it", _joblib(_memory_map), _UNOPENED, _load_joblib),
]


# skops files -------------------------------------------------------------------------------------------------------


def _json(value: Any) -> dict[str, Any]:
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


def _node(loader: str, name: str, **state: Any) -> dict[str, Any]:
    module, _, type_name = name.rpartition(".")
    return {"__class__": type_name, "__module__": module, "__loader__": loader, **state}


def _tuple(*content: dict[str, Any]) -> dict[str, Any]:
    return _node("TupleNode", "builtins.tuple", content=list(content))


def _list(*content: dict[str, Any], **state: Any) -> dict[str, Any]:
    return _node("ListNode", "builtins.list", content=list(content), **state)


def _dict(content: dict[str, Any], key_type: dict[str, Any] | None = None) -> dict[str, Any]:
    key_type = key_type or _node("TypeNode", "builtins.str")
    return _node("DictNode", "builtins.dict", content=content, key_types=_list(*[key_type] * len(content)))


def _plain() -> bytes:
    return skops.io.dumps(FunctionTransformer(kw_args={"x": 1}))


def edited(data: bytes, change: Callable[[dict[str, Any]], Any], members: dict[str, bytes] | None = None) -> bytes:
    """Return a skops file whose schema was changed by hand, with more members if so wished."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as target:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                content = json.dumps(change(schema) or schema).encode()
            target.writestr(name, content)
        for name, content in (members or {}).items():
            target.writestr(name, content)
    return out.getvalue()


def _holding(
    node: Callable[[Trap], dict[str, Any]], members: dict[str, bytes] | None = None
) -> Callable[[Trap], bytes]:
    """A transformer that holds an object as its parameter."""

    def make(trap: Trap) -> bytes:
        def change(schema: dict[str, Any]) -> None:
            schema["content"]["content"]["kw_args"] = node(trap)

        return edited(_plain(), change, members)

    return make


def _calling(function: dict[str, Any], text: Callable[[Trap], str]) -> Callable[[Trap], bytes]:
    """A transformer that has a dictionary whose key is made by a function: skops calls that when it loads the file."""
    return _holding(lambda trap: _dict({text(trap): _json(1)}, function))


def _function(name: str) -> dict[str, Any]:
    return _node("FunctionNode", name)


def _written_by(protocol: int, node: Callable[[Trap], dict[str, Any]]) -> Callable[[Trap], bytes]:
    def make(trap: Trap) -> bytes:
        return edited(_holding(node)(trap), lambda schema: {**schema, "protocol": protocol})

    return make


def _old_function(trap: Trap) -> dict[str, Any]:
    # Protocol 0 reads the name from another place than the one that says check_array.
    place = {"module_path": OWN, "function": "system"}
    function = _node("FunctionNode", "sklearn.utils.validation.check_array", content=place)
    return _dict({trap.command: _json(1)}, function)


def _hidden(trap: Trap) -> dict[str, Any]:
    # skops takes the first node of an id for all later ones: the second is not the type that it says.
    first = {**_function(f"{OWN}.leave"), "__id__": 7}
    second = {**_node("TypeNode", "builtins.str"), "__id__": 7}
    return _tuple(first, _dict({str(trap.mark): _json(1)}, second))


def _hidden_list(trap: Trap) -> dict[str, Any]:
    types = _list({**_function(f"{OWN}.leave")}, __id__=7)
    dictionary = _dict({str(trap.mark): _json(1)})
    dictionary["key_types"]["__id__"] = 7
    return _tuple(types, dictionary)


def _method(trap: Trap) -> dict[str, Any]:
    path = _node("ConstructorFromReduceNode", "pathlib.PosixPath", content=_tuple(_json(str(trap.mark))))
    method = _node("MethodNode", "pathlib.PosixPath", content={"obj": path, "func": "write_text"})
    return _dict({"text": _json(1)}, method)


def _partial(trap: Trap) -> dict[str, Any]:
    held = {"func": _function("os.system"), "args": _tuple(), "kwds": _dict({}), "namespace": _dict({})}
    return _dict({trap.command: _json(1)}, _node("PartialNode", "functools.partial", content=held))


def _generator(name: str, pool: int = 4) -> dict[str, Any]:
    state = _dict({"bit_generator": _json(name)})
    seeds = _dict({"entropy": _json(1), "pool_size": _json(pool)})
    content = {"bit_generator": state, "seed_seq": seeds}
    return _node("RandomGeneratorNode", "numpy.random._generator.Generator", content=content)


def _array(file: str, name: str = "numpy.ndarray") -> dict[str, Any]:
    return _node("NdArrayNode", name, type="numpy", file=file)


def _npz(member: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", member)
    return out.getvalue()


def _claiming(elements: int) -> bytes:
    """A .npy file of no data whose header says that there are so many numbers."""
    return _with_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({elements},), }}")


def _with_header(header: str, data: bytes = b"") -> bytes:
    """A .npy file with a header of one's own."""
    padded = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode() + data


def _of_two_kinds(trap: Trap) -> bytes:
    """An array of pickled objects whose header first says that they are numbers: Python takes what comes last."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    return _with_header(header, _npy(_object_array(trap))[128:])


def _with_array(
    member: Callable[[Trap], bytes], node: Callable[[str], dict[str, Any]] = _array
) -> Callable[[Trap], bytes]:
    return lambda trap: _holding(lambda _: node("1.npy"), {"1.npy": member(trap)})(trap)


def _sparse(file: str) -> dict[str, Any]:
    return _node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file=file)


def _nested(levels: int) -> dict[str, Any]:
    held = _json(1)
    for _ in range(levels):
        held = _list(held)
    return held


def _cyclic(trap: Trap) -> dict[str, Any]:
    return _list(_list(__id__=9), __id__=9)


def _laughs(trap: Trap) -> dict[str, Any]:
    """Each list holds the one below twice, by its id alone: 2 to the 40th objects in a few lines."""
    held = _list(_json(1), __id__=1)
    for number in range(2, 42):
        held = _list(held, {"__id__": number - 1}, __id__=number)
    return held


def careless(data: bytes) -> Any:
    """Load a skops file as somebody does who trusts whatever it names."""
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


def zipped(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip with these members, two of one name if so wished."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members:
            archive.NameToInfo.pop(name, None)  # it would only warn of two members of one name
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=compression)
    return out.getvalue()


@cache
def bomb(name: str = "schema.json", size: int = 70 * 2**20) -> bytes:
    """Return a zip of some 70 KB that expands to ``size`` bytes and says so."""
    return zipped([(name, bytes(size))], zipfile.ZIP_DEFLATED)


def lying_bomb(name: str = "schema.json") -> bytes:
    """Return one that says it holds two bytes, with the right checksum of these."""
    data = bytearray(bomb(name))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 16, zlib.crc32(bytes(2)))
    struct.pack_into("<I", data, entry + 24, 2)
    return bytes(data)


def encrypted(data: bytes) -> bytes:
    """Return a zip whose first member says that it is encrypted."""
    changed = bytearray(data)
    entry = changed.index(b"PK\x01\x02")
    changed[entry + 8] |= 1
    return bytes(changed)


def _schema(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("schema.json")


def _twice(trap: Trap) -> bytes:
    good = _schema(_plain())
    evil = _schema(_calling(_function("os.system"), lambda t: t.command)(trap))
    return zipped([("schema.json", good), ("schema.json", evil)])


#: model.py of a pipeline churn: with names that it imports, and with a function and a class of its own.
OWN_CODE = """
import os
from os import system
from subprocess import Popen

def leave(place):
    open(place, "w").close()
    return place

class Store:
    def __init__(self, place):
        leave(place)

    def clear(self, place):
        return leave(place)
"""


def own_code() -> types.ModuleType:
    """Return that model.py as it is once it was imported."""
    module = types.ModuleType(OWN)
    exec(OWN_CODE, module.__dict__)
    return module


def _own_method(trap: Trap) -> dict[str, Any]:
    owner = _node("ObjectNode", f"{OWN}.Store")
    method = _node("MethodNode", f"{OWN}.Store", content={"obj": owner, "func": "clear"})
    return _dict({str(trap.mark): _json(1)}, method)


def _command(trap: Trap) -> str:
    return trap.command


def _thing(loader: str, **state: Any) -> Callable[[Trap], bytes]:
    return _holding(lambda trap: _node(loader, f"{MODULE}.Thing", **state))


_THING = rf"{MODULE}\.Thing"
_POPEN_ARGUMENTS = _tuple(_list(_json("true")))

SKOPS = [
    # Functions, called while the file is loaded.
    Crafted("FunctionNode, os.system", _calling(_function("os.system"), _command), r"os\.system", careless),
    Crafted("FunctionNode, eval", _calling(_function("builtins.eval"), lambda t: t.code), r"builtins\.eval", careless),
    Crafted("FunctionNode, exec", _calling(_function("builtins.exec"), lambda t: t.code), r"builtins\.exec", careless),
    Crafted(
        "FunctionNode, __import__",
        _calling(_function("builtins.__import__"), lambda t: MODULE),
        r"builtins\.__import__",
        careless,
    ),
    Crafted("FunctionNode, pickle.loads", _calling(_function("pickle.loads"), str), r"pickle\.loads", None),
    Crafted("PartialNode, os.system", _holding(_partial), r"os\.system", careless),
    Crafted("MethodNode", _holding(_method), r"pathlib\.PosixPath\.write_text", careless),
    Crafted(
        "OperatorFuncNode, call",
        _holding(
            lambda t: _node("OperatorFuncNode", "operator.call", attrs=_tuple(_function("os.system"), _json(t.command)))
        ),
        r"operator\.call, os\.system",
        careless,
    ),
    Crafted(
        "OperatorFuncNode, methodcaller",
        _holding(lambda t: _node("OperatorFuncNode", "operator.methodcaller", attrs=_tuple(_json("__reduce__")))),
        r"operator\.methodcaller",
        None,
    ),
    # Types, made or imported while the file is loaded.
    Crafted(
        "ConstructorFromReduceNode, os.system",
        _holding(lambda t: _node("ConstructorFromReduceNode", "os.system", content=_tuple(_json(t.command)))),
        r"os\.system",
        careless,
    ),
    Crafted(
        "ConstructorFromReduceNode, Popen",
        _holding(lambda t: _node("ConstructorFromReduceNode", "subprocess.Popen", content=_POPEN_ARGUMENTS)),
        r"subprocess\.Popen",
        careless,
    ),
    Crafted(
        "LossNode, Popen",
        _holding(
            lambda t: _node("LossNode", "subprocess.Popen", content=_dict({}), __reduce__={"args": _POPEN_ARGUMENTS})
        ),
        r"subprocess\.Popen",
        careless,
    ),
    Crafted(
        "TreeNode",
        _holding(
            lambda t: _node("TreeNode", "os.system", content=_dict({}), __reduce__={"args": _tuple(_json(t.command))})
        ),
        r"os\.system",
        None,
    ),
    Crafted(
        "QuantileForestNode",
        _holding(lambda t: _node("QuantileForestNode", "os.system", content=_dict({}), __reduce__={"args": _tuple()})),
        r"os\.system \(as QuantileForestNode\)",
        None,
    ),
    Crafted("TypeNode", _thing("TypeNode"), _THING, careless),
    Crafted("ObjectNode", _thing("ObjectNode", content=_json({"a": 1})), _THING, careless),
    Crafted("RandomStateNode", _thing("RandomStateNode", content=_dict({})), _THING, careless),
    Crafted("ListNode", _thing("ListNode", content=[_json(1)]), _THING, careless),
    Crafted("SetNode", _thing("SetNode", content=[_json(1)]), _THING, careless),
    Crafted("TupleNode", _thing("TupleNode", content=[_json(1)]), _THING, careless),
    Crafted("DictNode", _thing("DictNode", content={}, key_types=_list()), _THING, careless),
    Crafted(
        "DefaultDictNode",
        _holding(
            lambda t: _node(
                "DefaultDictNode",
                "collections.defaultdict",
                content={"main": _dict({}), "default_factory": _node("TypeNode", f"{MODULE}.Thing")},
            )
        ),
        _THING,
        careless,
    ),
    Crafted(
        "NdArrayNode, another type",
        _holding(lambda t: _array("1.npy", f"{MODULE}.Thing"), {"1.npy": _npy(np.zeros(2))}),
        _THING,
        careless,
    ),
    Crafted(
        "NdArrayNode, objects",
        _holding(
            lambda t: _node(
                "NdArrayNode",
                "numpy.ndarray",
                type="json",
                shape=_tuple(_json(1)),
                content=[_node("TypeNode", f"{MODULE}.Thing")],
            )
        ),
        _THING,
        careless,
    ),
    Crafted(
        "MaskedArrayNode",
        _holding(
            lambda t: _node(
                "MaskedArrayNode",
                "numpy.ma.MaskedArray",
                content={"data": _node("TypeNode", f"{MODULE}.Thing"), "mask": _json(False)},
            )
        ),
        _THING,
        careless,
    ),
    Crafted(
        "DTypeNode",
        _holding(lambda t: _node("DTypeNode", "numpy.dtype", content=_node("TypeNode", f"{MODULE}.Thing"))),
        _THING,
        careless,
    ),
    Crafted("JsonNode of a type", _holding(lambda t: {**_json(1), "__module__": MODULE}), rf"{MODULE}\.str", None),
    Crafted(
        "JsonNode that holds a node",
        _holding(lambda t: {**_json(1), "content": _node("TypeNode", f"{MODULE}.Thing")}),
        "cannot be read",
        None,
    ),
    Crafted(
        "SliceNode that holds a node",
        _holding(
            lambda t: _node(
                "SliceNode", "builtins.slice", content={"start": _function("os.system"), "stop": None, "step": None}
            )
        ),
        r"builtins\.slice \(as SliceNode\)",
        None,
    ),
    Crafted("CachedNode", _holding(lambda t: _node("CachedNode", "os.system", __id__=5)), r"os\.system", None),
    Crafted("a node that nobody knows", _holding(lambda t: _node("ExecNode", "os.system")), r"os\.system", None),
    # Names that look like others.
    Crafted(
        "a name behind an allowed one",
        _holding(lambda t: _function("sklearn.utils.os.system")),
        r"sklearn\.utils\.os\.system",
        None,
    ),
    Crafted(
        "an allowed name cut elsewhere",
        _holding(lambda t: {**_node("ObjectNode", "x.y"), "__module__": "sklearn", "__class__": "utils._bunch.Bunch"}),
        r"sklearn\.utils\._bunch\.Bunch \(as ObjectNode\)",
        None,
    ),
    Crafted("a module's __init__", _holding(lambda t: _node("TypeNode", f"{MODULE}.__init__.Thing")), MODULE, careless),
    Crafted(
        "a name with control characters",
        _holding(lambda t: {**_function("os.system"), "__module__": "\x1b]0;hello\x07\nos"}),
        r"\\x1b\]0;hello\\x07\\nos\.system",
        None,
    ),
    # The pipeline's own code.
    Crafted("what model.py imports", _calling(_function(f"{OWN}.system"), _command), rf"{OWN}\.system", careless),
    Crafted(
        "a class that model.py imports",
        _holding(lambda t: _node("ConstructorFromReduceNode", f"{OWN}.Popen", content=_POPEN_ARGUMENTS)),
        rf"{OWN}\.Popen",
        careless,
    ),
    Crafted(
        "a module that model.py imports", _holding(lambda t: _function(f"{OWN}.os.system")), rf"{OWN}\.os\.system", None
    ),
    Crafted(
        "a module of model.py's as a type", _holding(lambda t: _node("TypeNode", f"{OWN}.os")), rf"{OWN}\.os", None
    ),
    Crafted(
        "another pipeline's code",
        _holding(lambda t: _node("ObjectNode", "prescore_pipelines.other.model.Thing")),
        r"prescore_pipelines\.other\.model\.Thing",
        None,
    ),
    Crafted(
        "an own function, called while the file is loaded",
        _calling(_function(f"{OWN}.leave"), lambda t: str(t.mark)),
        rf"dictionary keys made by {OWN}\.leave",
        careless,
    ),
    Crafted(
        "an own class, called with what the file says",
        _holding(lambda t: _node("ConstructorFromReduceNode", f"{OWN}.Store", content=_tuple(_json(str(t.mark))))),
        rf"{OWN}\.Store \(as ConstructorFromReduceNode\)",
        careless,
    ),
    Crafted("an own method", _holding(_own_method), rf"{OWN}\.Store \(as MethodNode\)", careless),
    Crafted("protocol 0, a function named elsewhere", _written_by(0, _old_function), "skops protocol 0", careless),
    Crafted("one id for a function and a type", _holding(_hidden), "one id to several things", careless),
    Crafted("one id for two lists", _holding(_hidden_list), "one id to several things", careless),
    # Random numbers.
    Crafted(
        "RandomGeneratorNode, another function", _holding(lambda t: _generator("seed")), r"numpy\.random\.seed", None
    ),
    *(
        Crafted(
            f"protocol {protocol}, another function of numpy.random",
            _written_by(protocol, lambda t: _generator("set_bit_generator")),
            r"numpy\.random\.set_bit_generator|skops protocol 0",
            None,
        )
        for protocol in (0, 1)
    ),
    Crafted("a pool of a billion seeds", _holding(lambda t: _generator("PCG64", 10**9)), r"numpy\.random", None),
    # Arrays.
    Crafted(
        "an array of pickled objects", _with_array(lambda t: _npy(_object_array(t))), "array of pickled objects", None
    ),
    Crafted(
        "an array of pickled objects that says numbers first", _with_array(_of_two_kinds), "of pickled objects", None
    ),
    Crafted("a pickle as array", _with_array(lambda t: _npy(_object_array(t))[128:]), "is no numpy array", None),
    Crafted(
        "a sparse matrix of pickled objects",
        _with_array(lambda t: _npz(_npy(_object_array(t))), _sparse),
        "array of pickled objects",
        None,
    ),
    Crafted(
        "a sparse matrix that is a zip bomb", _with_array(lambda t: bomb("data.npy"), _sparse), "would expand to", None
    ),
    Crafted(
        "a sparse matrix of a trillion numbers",
        _with_array(lambda t: _npz(_claiming(10**12)), _sparse),
        "claims an array of 8,000,000,000,000",
        None,
    ),
    Crafted(
        "an array of a trillion numbers",
        _with_array(lambda t: _claiming(10**12)),
        "claims an array of 8,000,000,000,000",
        None,
    ),
    Crafted(
        "a billion bytes out of a number",
        _with_array(lambda t: _npy(np.array(10**9)), lambda file: _array(file, "numpy.void")),
        r"numpy\.void",
        None,
    ),
    # Shapes that exhaust whoever reads them.
    Crafted("a schema of 100,000 levels", lambda t: zipped([("schema.json", b"[" * 100_000)]), "is no JSON", None),
    Crafted("lists of 300 levels", _holding(lambda t: _nested(300)), r"RecursionError", None),
    Crafted("a list that holds itself", _holding(_cyclic), "one id to several things", None),
    Crafted("a trillion objects by reference", _holding(_laughs), "one id to several things", None),
    Crafted("a zip bomb", lambda t: bomb(), "would expand to 73,400,320 bytes", None),
    Crafted("a zip bomb that lies", lambda t: lying_bomb(), "is no JSON|is damaged", None),
    Crafted(
        "a compression without bounds",
        lambda t: zipped([("schema.json", b"{}")], zipfile.ZIP_LZMA),
        "otherwise than by deflate",
        None,
    ),
    Crafted("an encrypted member", lambda t: encrypted(_plain()), "encrypted", None),
    # Archives.
    Crafted("schema.json twice", _twice, r"schema\.json more than once", careless),
    Crafted("a path as a name", lambda t: edited(_plain(), dict, {"../../sprung": b""}), "which is a path", None),
    Crafted(
        "an absolute path as a name", lambda t: edited(_plain(), dict, {str(t.mark): b""}), "which is a path", None
    ),
    Crafted(
        "a pickle beside the schema",
        lambda t: edited(_plain(), dict, {"model.pkl": pickle.dumps(Call(os.system, t.command))}),
        r"model\.pkl, which its schema does not name",
        None,
    ),
    Crafted(
        "a zip of pickles without a schema",
        lambda t: zipped([("data.pkl", pickle.dumps(Call(os.system, t.command)))]),
        r"a zip without schema\.json",
        None,
    ),
    Crafted("a schema that is no JSON", lambda t: zipped([("schema.json", b"cos\nsystem\n")]), "is no JSON", None),
    Crafted("a schema that is no object", lambda t: zipped([("schema.json", b"[]")]), "holds no object", None),
    Crafted("a schema without nodes", lambda t: zipped([("schema.json", b'{"protocol": 2}')]), "cannot be read", None),
    Crafted("a truncated file", lambda t: _plain()[:-30], "is damaged", None),
    Crafted("an empty file", lambda t: b"", "is empty|no skops file", None),
]
