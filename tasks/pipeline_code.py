"""The Python files of a pipeline: looked at without running them, digested, and imported under a name of their own.

model.py of the pipeline churn is imported as ``prescore_pipelines.churn.model``, so that two of them never collide and
what is pickled finds its class again.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.errors import PipelineCodeFailed

#: Name of the package that holds a package for each pipeline.
PACKAGE = "prescore_pipelines"

#: Attribute of a pipeline's package: the folder and code that were imported.
_STATE = "__prescore_state__"

_lock = threading.RLock()


# Looking without running ---------------------------------------------------------------------------------------------


def files(folder: Path, pattern: str = "*") -> list[str]:
    """Return the files of a pipeline's folder as relative paths, in order; hidden ones and byte code are left out."""
    found = []
    for path in folder.rglob(pattern):
        relative = path.relative_to(folder)
        if not any(part.startswith(".") or part == "__pycache__" for part in relative.parts) and path.is_file():
            found.append(relative.as_posix())
    return sorted(found)


def function_problem(folder: Path, reference: str, takes: int) -> str | None:
    """Return why ``file.py:function`` cannot be called with this many arguments, or None; nothing is imported."""
    file, colon, function = reference.partition(":")
    stems = [part.removesuffix(".py") for part in file.split("/")]
    well_formed = (
        colon and file.endswith(".py") and all(stem.isidentifier() for stem in stems) and function.isidentifier()
    )
    if not well_formed:
        return f'expected a file and a function such as "model.py:preprocess", found "{reference}"'
    if file not in files(folder, "*.py"):
        there = files(folder, "*.py")
        listed = f"the folder holds {', '.join(there)}" if there else "the folder holds no .py file"
        return f"there is no file {file}; {listed}"
    try:
        tree = _parse(folder / file)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return None  # code_problems() says so, once for the file
    defined = dict(_top_level(tree.body))
    if function not in defined:
        if "*" in defined:
            return None
        functions = sorted(name for name, node in defined.items() if isinstance(node, ast.FunctionDef))
        near = difflib.get_close_matches(function, list(defined), n=1)
        meant = f'; did you mean "{file}:{near[0]}"?' if near else f"; it defines {', '.join(functions) or 'none'}"
        return f"{file} defines no {function}{meant}"
    return _call_problem(file, defined[function], takes)


def code_problems(folder: Path) -> list[tuple[str, str]]:
    """Return (place, message) for every .py file of the folder that Python cannot parse."""
    problems = []
    for name in files(folder, "*.py"):
        try:
            _parse(folder / name)
        except SyntaxError as error:
            place = f"{name} line {error.lineno}" if error.lineno else name
            problems.append((place, f"is no Python: {error.msg}"))
        except (ValueError, RecursionError, MemoryError, OSError) as error:
            problems.append((name, f"is no Python: {type(error).__name__}: {error}"))
    return problems


def normal_code(path: Path) -> str:
    """Return a .py file as text that is the same for other comments, docstrings, blank lines or layout."""
    try:
        return json.dumps(_plain(_parse(path)), separators=(",", ":"))
    except RecursionError:
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        # An invalid escape in user code is the user's: it shows when the code is imported.
        warnings.simplefilter("ignore")
        return ast.parse(path.read_bytes())


def _top_level(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the names that statements define in their module; ``*`` for those that cannot be seen."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name, statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                yield (alias.asname or alias.name.partition(".")[0]), statement
        elif isinstance(
            statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For | ast.With | ast.While | ast.If
        ):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id, statement
        for block in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _top_level(getattr(statement, block, ()))
        for handler in getattr(statement, "handlers", ()):
            yield from _top_level(handler.body)


def _call_problem(file: str, node: ast.AST, takes: int) -> str | None:
    """Return why a definition cannot be called with so many positional arguments; other names than functions may be."""
    if isinstance(node, ast.AsyncFunctionDef):
        return f"{file}:{node.name} is async; write an ordinary function"
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return None
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    needed = positional - len(arguments.defaults)
    keywords = sum(default is None for default in arguments.kw_defaults)
    if needed > takes or keywords or (positional < takes and arguments.vararg is None):
        expected = "one argument, the frame" if takes else "no argument"
        return f"{file}:{node.name} is called with {expected}; its definition does not take that"
    return None


def _plain(node: Any) -> Any:
    """Return a syntax tree as lists without positions and docstrings, the same in every version of Python."""
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, ascii(node.value)]
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                value = value[1:] if _is_docstring(value) else value  # noqa: PLW2901
            # Later versions add fields; what they leave empty must not change the digest of old code.
            if value is not None and value != [] and name not in {"ctx", "type_comment", "type_ignores"}:
                fields.append([name, _plain(value)])
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return node


def _is_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


# Importing -----------------------------------------------------------------------------------------------------------


def import_function(name: str, folder: Path, reference: str) -> Callable[..., Any]:
    """Import the file of ``file.py:function`` and return the function.

    Raises
    ------
    PipelineCodeFailed
        When the import raises, naming file and line, or when there is no such function.
    """
    file, _, function = reference.partition(":")
    module = import_file(name, folder, file)
    found: Callable[..., Any] | None = getattr(module, function, None)
    if found is None or not callable(found):
        raise PipelineCodeFailed(f"{name}/{file}", None, f"holds no function {function}")
    return found


def import_file(name: str, folder: Path, file: str) -> ModuleType:
    """Import a .py file of a pipeline's folder as ``prescore_pipelines.<name>.<file without .py>``.

    It is imported once, and again when any .py file of the folder changed or another folder has the same name. Its
    neighbours are importable from it: ``from .helpers import f``.

    Raises
    ------
    PipelineCodeFailed
        When the import raises, naming file and line; the cause is chained.
    """
    with _lock:
        package = _package(name, folder)
        module = ".".join([package.__name__, *file.removesuffix(".py").split("/")])
        try:
            return importlib.import_module(module)
        except (Exception, SystemExit) as error:
            _forget(package.__name__)
            place, line = _where(error, folder, file)
            reason = f"{type(error).__name__}: {error}{_import_hint(error, folder)}"
            raise PipelineCodeFailed(f"{name}/{place}", line, reason) from error


class _Loader(SourceFileLoader):
    """Loads what is in the file now: byte code is judged by time and size, and misses an edit within a second."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no byte code is kept for {path}")


class _Finder:
    """Finds the modules of pipelines in their folders."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None, _target: Any = None) -> ModuleSpec | None:
        if path is None or not fullname.startswith(PACKAGE + "."):
            return None
        for entry in path:
            spec = FileFinder(entry, (_Loader, [".py"])).find_spec(fullname)
            if spec is not None and spec.loader is not None:
                return spec
        return None


def _package(name: str, folder: Path) -> ModuleType:
    """Return the package of a pipeline, made anew when its code is not the one that was imported."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    if PACKAGE not in sys.modules:
        _add_package(PACKAGE, [])
    full, state = f"{PACKAGE}.{name}", _state(folder)
    package = sys.modules.get(full)
    if package is None or vars(package).get(_STATE) != state:
        _forget(full)
        importlib.invalidate_caches()
        package = _add_package(full, [str(folder)])
        vars(package)[_STATE] = state
        setattr(sys.modules[PACKAGE], name, package)
    return package


def _add_package(full: str, path: list[str]) -> ModuleType:
    spec = ModuleSpec(full, None, is_package=True)
    spec.submodule_search_locations = path
    package = importlib.util.module_from_spec(spec)
    sys.modules[full] = package
    return package


def _forget(full: str) -> None:
    for module in [known for known in sys.modules if known == full or known.startswith(full + ".")]:
        del sys.modules[module]


def _state(folder: Path) -> str:
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape"))
    for name in files(folder, "*.py"):
        digest.update(json.dumps(name).encode())
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()


def _import_hint(error: BaseException, folder: Path) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{error.name}.py" in files(folder, "*.py"):
        return f"; it is a neighbour: write from .{error.name} import ..., or from . import {error.name}"
    return ""


def _where(error: BaseException, folder: Path, file: str) -> tuple[str, int | None]:
    """Return the file of the pipeline and the line at which an error arose."""
    if isinstance(error, SyntaxError) and error.filename:
        named = Path(error.filename)
        if named.is_relative_to(folder):
            return named.relative_to(folder).as_posix(), error.lineno
    place, line, step = file, None, error.__traceback__
    while step is not None:
        named = Path(step.tb_frame.f_code.co_filename)
        if named.is_relative_to(folder):
            place, line = named.relative_to(folder).as_posix(), step.tb_lineno
        step = step.tb_next
    return place, line
