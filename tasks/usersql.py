"""Queries that users write, judged on the tree that PostgreSQL's own parser makes of them.

A word in a string, a comment or a quoted name is no finding, because no text is searched.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pglast import ast, parse_sql, scan
from pglast.enums import CoercionForm, SetOperation, SQLValueFunctionOp, SubLinkType
from pglast.parser import ParseError

from tasks.errors import SqlInvalid

#: Relations that prescore supplies. A query that names a CTE like one of them would silently read its own.
SUPPLIED = frozenset({"run", "batch", "since"})

_WHITESPACE = " \t\n\r\f\v"

_CLOCK_FUNCTIONS = frozenset(
    {"now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"}
)  # age(x) with one argument and 'now'::date read the clock too; they are recognised by shape
_RANDOM_FUNCTIONS = frozenset(
    {"random", "random_normal", "gen_random_uuid", "uuidv4", "uuidv7", "uuid_generate_v4", "setseed", "nextval"}
)
_CLOCK_WORDS = frozenset({"now", "today", "tomorrow", "yesterday"})
_TIME_TYPES = frozenset({"date", "time", "timetz", "timestamp", "timestamptz"})
_CLOCK_VALUES = {
    SQLValueFunctionOp.SVFOP_CURRENT_DATE: "current_date",
    SQLValueFunctionOp.SVFOP_CURRENT_TIME: "current_time",
    SQLValueFunctionOp.SVFOP_CURRENT_TIME_N: "current_time",
    SQLValueFunctionOp.SVFOP_CURRENT_TIMESTAMP: "current_timestamp",
    SQLValueFunctionOp.SVFOP_CURRENT_TIMESTAMP_N: "current_timestamp",
    SQLValueFunctionOp.SVFOP_LOCALTIME: "localtime",
    SQLValueFunctionOp.SVFOP_LOCALTIME_N: "localtime",
    SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP: "localtimestamp",
    SQLValueFunctionOp.SVFOP_LOCALTIMESTAMP_N: "localtimestamp",
}
_WRITES = {
    ast.InsertStmt: "INSERT",
    ast.UpdateStmt: "UPDATE",
    ast.DeleteStmt: "DELETE",
    ast.MergeStmt: "MERGE",
}
_WHAT_FOR = {
    "run": "the entities that exist at run.as_of",
    "batch": "the features of the entities that it is given",
    "since": "the keys that changed after since.at",
}


class Severity(StrEnum):
    """How much a finding matters."""

    #: The query is refused.
    ERROR = "error"
    #: The query runs; what it returns may surprise.
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class UserQuery:
    """One SELECT that a user wrote: without the whitespace around it, and without its semicolon."""

    text: str
    #: Where it stands: ``features.sql``, or ``pipeline.toml [entity] query``.
    origin: str
    #: Line of that place at which the text begins.
    line: int = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a look at a query found; ``message`` says where, what and what to write instead."""

    severity: Severity
    #: Stable word for programs: ``syntax``, ``limit``, ``clock``, ...
    code: str
    message: str


def read_query(text: str, origin: str) -> UserQuery:
    """Return the query of a file or of a TOML value.

    The end of a statement is where the parser sees it: in ``SELECT 1; -- done`` that is before the semicolon. What
    cannot be parsed, or holds more than one statement, is returned as it stands and refused by :func:`judge`.
    """
    body = text.removeprefix("\ufeff")
    try:
        statements = _parse(body)
    except ParseError:
        statements = ()
    if len(statements) == 1 and statements[0].stmt_len:
        body = body[: statements[0].stmt_location + statements[0].stmt_len]
    begun = body.lstrip(_WHITESPACE)
    line = 1 + body[: len(body) - len(begun)].count("\n")
    return UserQuery(text=begun.rstrip(_WHITESPACE), origin=origin, line=line)


def normalise(text: str) -> str:
    """Return the query's parse tree as text: the same for other whitespace, comments or case of keywords.

    Raises
    ------
    SqlInvalid
        When the text is no SQL.
    """
    try:
        statements = _parse(text)
    except ParseError as error:
        raise SqlInvalid("query", _error_line(text, error), _reason(error)) from None
    try:
        return json.dumps([_plain(statement.stmt) for statement in statements], separators=(",", ":"))
    except RecursionError:
        raise SqlInvalid("query", None, _TOO_DEEP) from None


def judge(query: UserQuery, supplied: str, *, sampling: bool = False) -> list[Finding]:
    """Return what is wrong or doubtful with a query, errors first.

    Parameters
    ----------
    supplied
        The relation that it is given: ``run`` (it may do without), ``batch`` or ``since``.
    sampling
        Labels may be a sample: a LIMIT over the whole query is then a warning, not an error.
    """
    try:
        statements = _parse(query.text)
    except ParseError as error:
        line = query.line + (_error_line(query.text, error) or 1) - 1
        hint = ""
        if query.text[_error_index(query.text, error) :].startswith(":"):
            hint = f". There are no parameters: read {_COLUMN[supplied]} from the relation {supplied}"
        return [_error("syntax", f"{query.origin} line {line}: {_reason(error)}{hint}")]
    if "\x00" in query.text:
        return [_error("syntax", f"{query.origin}: holds a NUL character; remove it")]
    if len(statements) != 1:
        found = f"holds {len(statements)} statements" if statements else "holds no statement"
        return [_error("statements", f"{query.origin}: {found}, exactly one SELECT is expected")]
    statement = statements[0].stmt
    if not _is(statement, ast.SelectStmt):
        kind = type(statement).__name__.removesuffix("Stmt").upper()
        return [_error("not_select", f"{query.origin}: is a statement of kind {kind}, exactly one SELECT is expected")]
    reading = _Reading(query=query, supplied=supplied, sampling=sampling)
    try:
        reading.read(statement)
    except RecursionError:
        return [_error("syntax", f"{query.origin}: {_TOO_DEEP}")]
    return sorted(reading.findings, key=lambda finding: finding.severity)


_TOO_DEEP = "is nested too deeply to be judged; split it into CTEs"
_COLUMN = {"run": "run.as_of", "batch": "batch.as_of", "since": "since.at"}


def tables(query: UserQuery) -> set[tuple[str | None, str]]:
    """Return (schema, name) of every table that the query names; its CTEs and the supplied relations are none.

    Raises
    ------
    SqlInvalid
        When the text is no SQL.
    """
    try:
        statements = _parse(query.text)
    except ParseError as error:
        raise SqlInvalid(query.origin, _error_line(query.text, error), _reason(error)) from None
    reading = _Reading(query=query, supplied="run", sampling=True)
    try:
        reading.walk(tuple(statement.stmt for statement in statements), frozenset(), _Place.TOP)
    except RecursionError:
        raise SqlInvalid(query.origin, None, _TOO_DEEP) from None
    return reading.tables


def expression_problem(text: str) -> str | None:
    """Return why the text is not one SQL expression, or None when it is.

    Parentheses are counted too: ``true) OR (true`` parses inside parentheses and would leave them.
    """
    if "\x00" in text or not text.strip():
        return "is empty" if not text.strip() else "holds a NUL character"
    try:
        depth = 0
        for token in scan(text):
            depth += {"ASCII_40": 1, "ASCII_41": -1}.get(token.name, 0)
            if depth < 0:
                return "closes a parenthesis that it did not open"
        statements = _parse(f"SELECT (\n{text}\n)")
        with contextlib.suppress(ParseError):
            return "is a statement" if _parse(text) else "is empty"
    except ParseError as error:
        return _reason(error)
    statement = statements[0].stmt
    used = {name for name in statement if getattr(statement, name)}
    value: Any = statement.targetList[0].val if "targetList" in used else None
    several = _is(value, ast.RowExpr) and value.row_format == CoercionForm.COERCE_IMPLICIT_CAST
    if len(statements) > 1 or used - {"targetList", "limitOption", "op"} or value is None or several:
        return "is more than one expression"
    return None


class _Place(StrEnum):
    """What a SELECT is part of, as far as its LIMIT matters."""

    #: The query itself, or one arm of its UNION.
    TOP = "top"
    #: Evaluated for each row of another: its LIMIT picks what belongs to that row.
    PER_ROW = "per_row"
    INNER = "inner"


@dataclass(kw_only=True)
class _Reading:
    """One walk through a statement, with what it finds on the way."""

    query: UserQuery
    supplied: str
    sampling: bool
    findings: list[Finding] = field(default_factory=list)
    tables: set[tuple[str | None, str]] = field(default_factory=set)
    referenced: set[str] = field(default_factory=set)

    def read(self, statement: Any) -> None:
        self.walk(statement, frozenset(), _Place.TOP)
        if self.supplied != "run" and self.supplied not in self.referenced:
            self._error(
                "unreferenced",
                None,
                f"never reads the relation {self.supplied}, so that it cannot return {_WHAT_FOR[self.supplied]}. "
                f"Add FROM {self.supplied}",
            )
        names = list(_output_names(statement))
        for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
            self._error(
                "duplicate_column", None, f"returns {names.count(name)} columns named {name}. Give each a name with AS"
            )

    def walk(self, node: Any, scope: frozenset[str], place: _Place) -> None:
        """Visit a node and what is below it; ``scope`` holds the names of the CTEs that are visible there."""
        if isinstance(node, tuple):
            for item in node:
                self.walk(item, scope, place)
        elif _is(node, ast.SelectStmt):
            self._select(node, scope, place)
        elif _is(node, ast.Node):
            self._look(node, scope)
            inner = _place_below(node, place)
            below = self._with(node, scope)
            for name in node:
                if name != "withClause":
                    self.walk(getattr(node, name), below, inner)

    def _select(self, node: Any, scope: frozenset[str], place: _Place) -> None:
        self._limit(node, place)
        if node.intoClause is not None:
            self._error("into", node.intoClause.rel, "creates a table with INTO. Remove INTO; a query only reads")
        if node.lockingClause:
            self._error("locks", None, "locks rows with FOR UPDATE or FOR SHARE. Remove it; a query only reads")
        below = self._with(node, scope)
        for name in node:
            if name in {"larg", "rarg"}:
                self.walk(getattr(node, name), below, place)
            elif name not in {"withClause", "intoClause"}:
                # A subquery among the columns is evaluated per row; one in a condition may choose the rows.
                self.walk(getattr(node, name), below, _Place.PER_ROW if name == "targetList" else _Place.INNER)

    def _with(self, node: Any, scope: frozenset[str]) -> frozenset[str]:
        """Visit the CTEs of a statement and return the names that are visible in the rest of it."""
        clause = getattr(node, "withClause", None)
        if clause is None:
            return scope
        names = [cte.ctename for cte in clause.ctes]
        for cte in clause.ctes:
            if cte.ctename in SUPPLIED:
                self._error(
                    "shadow",
                    cte,
                    f"has a CTE named {cte.ctename}, which hides the relation {cte.ctename} that prescore supplies. "
                    "Give the CTE another name",
                )
            before = names if clause.recursive else names[: names.index(cte.ctename)]
            self.walk(cte.ctequery, scope.union(before), _Place.INNER)
        return scope.union(names)

    def _look(self, node: Any, scope: frozenset[str]) -> None:
        if type(node) in _WRITES:
            self._error("writes", None, f"holds {_WRITES[type(node)]}. Remove it; a query only reads")
        elif _is(node, ast.ParamRef):
            self._error(
                "parameter",
                node,
                f"holds the parameter ${node.number}. There are none: read {_COLUMN[self.supplied]} instead",
            )
        elif _is(node, ast.RangeVar):
            self._relation(node, scope)
        elif _is(node, ast.RangeTableSample):
            self._warning("sample", node, "samples rows with TABLESAMPLE, so that two runs see other rows")
        elif _is(node, ast.SQLValueFunction) and node.op in _CLOCK_VALUES:
            self._clock(node, _CLOCK_VALUES[node.op])
        elif _is(node, ast.FuncCall):
            self._function(node)
        elif _is(node, ast.TypeCast) and _reads_clock(node):
            self._clock(node, f"'{node.arg.val.sval.strip().lower()}'")

    def _relation(self, node: Any, scope: frozenset[str]) -> None:
        bare = node.schemaname is None and node.catalogname is None
        if bare and node.relname in scope:
            return
        if bare and node.relname in SUPPLIED:
            self.referenced.add(node.relname)
        else:
            self.tables.add((node.schemaname, node.relname))

    def _function(self, node: Any) -> None:
        names = [part.sval for part in node.funcname]
        if len(names) > 1 and names[0] != "pg_catalog":
            return
        name = names[-1]
        if name in _CLOCK_FUNCTIONS and not node.args:
            self._clock(node, f"{name}()")
        elif name == "age" and len(node.args or ()) == 1:
            self._clock(node, "age() with one argument")
        elif name in _RANDOM_FUNCTIONS:
            self._warning(
                "random", node, f"calls {name}(), so that no run can be repeated. Derive it from the key instead"
            )

    def _clock(self, node: Any, what: str) -> None:
        self._warning(
            "clock",
            node,
            f"reads the clock with {what}, so that training and scoring see another time than as_of. Write "
            f"{_COLUMN[self.supplied]} instead",
        )

    def _limit(self, node: Any, place: _Place) -> None:
        words = [
            word for word, value in (("LIMIT", node.limitCount), ("OFFSET", node.limitOffset)) if _caps(value, word)
        ]
        if not words or place == _Place.PER_ROW:
            return
        written = " and ".join(words)
        if place == _Place.TOP and self.supplied == "run" and not self.sampling:
            self._error(
                "limit",
                node,
                f"has {written}, which leaves entities out without a word. Remove it, or say with WHERE whom to score",
            )
        else:
            self._warning("limit", node, f"has {written}, which may leave rows out without a word")

    def _error(self, code: str, node: Any, sentence: str) -> None:
        self.findings.append(_error(code, self._placed(node, sentence)))

    def _warning(self, code: str, node: Any, sentence: str) -> None:
        self.findings.append(Finding(severity=Severity.WARNING, code=code, message=self._placed(node, sentence)))

    def _placed(self, node: Any, sentence: str) -> str:
        location = _location(node)
        line = "" if location is None else f" line {self.query.line + _line(self.query.text, location) - 1}"
        return f"{self.query.origin}{line}: {sentence}"


def _error(code: str, message: str) -> Finding:
    return Finding(severity=Severity.ERROR, code=code, message=message)


def _place_below(node: Any, place: _Place) -> _Place:
    if _is(node, ast.RangeSubselect):
        return _Place.PER_ROW if node.lateral else _Place.INNER
    if _is(node, ast.SubLink):
        # A scalar subquery must not return more than one row, and EXISTS does not count them.
        if node.subLinkType in {SubLinkType.EXPR_SUBLINK, SubLinkType.EXISTS_SUBLINK}:
            return _Place.PER_ROW
        if node.subLinkType != SubLinkType.ARRAY_SUBLINK:
            return _Place.INNER
    return place


def _caps(value: Any, word: str) -> bool:
    """Return whether a LIMIT or OFFSET can leave rows out: LIMIT ALL, LIMIT NULL and OFFSET 0 cannot."""
    if value is None:
        return False
    if _is(value, ast.A_Const):
        if value.isnull:
            return False
        return not (word == "OFFSET" and _is(value.val, ast.Integer) and not value.val.ival)
    return True


def _reads_clock(cast: Any) -> bool:
    """Return whether a cast turns a word such as 'now' or 'today' into a time."""
    constant = cast.arg
    if not _is(constant, ast.A_Const) or not _is(constant.val, ast.String):
        return False
    return constant.val.sval.strip().lower() in _CLOCK_WORDS and cast.typeName.names[-1].sval in _TIME_TYPES


# Names of the columns that a SELECT returns, as PostgreSQL derives them ----------------------------------------------


def _output_names(statement: Any) -> Iterator[str | None]:
    """Yield the name of each column, None where it cannot be seen here (``*``)."""
    while statement.op != SetOperation.SETOP_NONE:
        statement = statement.larg
    for target in statement.targetList or ():
        value = target.val
        parts = value.fields if _is(value, ast.ColumnRef) else getattr(value, "indirection", None)
        if parts and _is(parts[-1], ast.A_Star):
            yield None
        else:
            yield target.name or _derived_name(value)[0] or "?column?"


def _derived_name(node: Any) -> tuple[str | None, bool]:
    """Return the name that an expression without AS gets, and whether it is strong: a type name yields to that one."""
    named: tuple[str | None, bool] = (None, False)
    if _is(node, ast.ColumnRef):
        named = _last_name(node.fields)
    elif _is(node, ast.A_Indirection):
        named = _last_name(node.indirection)
        if named[0] is None:
            named = _derived_name(node.arg)
    elif _is(node, ast.FuncCall):
        named = (node.funcname[-1].sval, True)
    elif _is(node, ast.A_Expr) and node.kind.name == "AEXPR_NULLIF":
        named = ("nullif", True)
    elif _is(node, ast.TypeCast):
        inner = _derived_name(node.arg)
        named = inner if inner[1] else (node.typeName.names[-1].sval, False)
    elif _is(node, ast.CollateClause):
        named = _derived_name(node.arg)
    elif _is(node, ast.CaseExpr):
        inner = _derived_name(node.defresult)
        named = inner if inner[1] else ("case", False)
    elif _is(node, ast.SubLink):
        named = _sublink_name(node)
    elif _is(node, ast.SQLValueFunction):
        named = (node.op.name.removeprefix("SVFOP_").removesuffix("_N").lower(), True)
    elif _is(node, ast.MinMaxExpr):
        named = (node.op.name.removeprefix("IS_").lower(), True)
    elif type(node) in _OWN_NAMES:
        named = (_OWN_NAMES[type(node)], True)
    return named


_OWN_NAMES = {
    ast.CoalesceExpr: "coalesce",
    ast.A_ArrayExpr: "array",
    ast.RowExpr: "row",
    ast.GroupingFunc: "grouping",
}


def _last_name(parts: tuple[Any, ...]) -> tuple[str | None, bool]:
    names = [part.sval for part in parts if _is(part, ast.String)]
    return (names[-1], True) if names else (None, False)


def _sublink_name(node: Any) -> tuple[str | None, bool]:
    if node.subLinkType == SubLinkType.EXISTS_SUBLINK:
        return "exists", True
    if node.subLinkType == SubLinkType.ARRAY_SUBLINK:
        return "array", True
    if node.subLinkType != SubLinkType.EXPR_SUBLINK:
        return None, False
    inner = next(_output_names(node.subselect), None)
    return (inner, True) if inner not in {None, "?column?"} else (None, False)


# The parser -----------------------------------------------------------------------------------------------------


def _parse(text: str) -> tuple[Any, ...]:
    # The parser is written in C and stops at a NUL; what follows it must not go unseen.
    statements: tuple[Any, ...] = parse_sql(text.replace("\x00", " "))
    return statements


def _is(node: Any, kind: type[Any]) -> bool:
    # Unlike isinstance, it leaves the type open: what the parser may leave out in theory is there in these shapes.
    return isinstance(node, kind)


def _slots(node: Any) -> Iterator[tuple[str, Any]]:
    yield from type(node).__slots__.items()


def _plain(node: Any) -> Any:
    """Return a tree of lists and dictionaries, without places in the text and without what has its default."""
    if isinstance(node, tuple):
        return [_plain(item) for item in node]
    if _is(node, ast.Node):
        plain: dict[str, Any] = {"@": type(node).__name__}
        for name, slot in _slots(node):
            value = getattr(node, name)
            if value is None or value is False or value == () or slot.c_type == "ParseLoc" or name == "location":
                continue
            plain[name] = _plain(value)
        return plain
    return node.name if hasattr(node, "name") else node


def _location(node: Any) -> int | None:
    """Return the index in the text at which a node, or the first node in it that knows its place, begins."""
    if isinstance(node, tuple):
        found = [place for place in map(_location, node) if place is not None]
        return min(found) if found else None
    if not _is(node, ast.Node):
        return None
    own = getattr(node, "location", None)
    if own is not None and own >= 0:
        return int(own)
    return _location(tuple(getattr(node, name) for name in node))


def _reason(error: ParseError) -> str:
    return str(error.args[0])


def _error_index(text: str, error: ParseError) -> int:
    """Return where the parser stopped.

    It counts characters, and pglast corrects for bytes once too often. With every other character made an x, which is
    the same to the grammar, both agree.
    """
    plain = "".join(character if character.isascii() else "x" for character in text)
    try:
        _parse(plain)
    except ParseError as same:
        error = same
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0


def _error_line(text: str, error: ParseError) -> int:
    return _line(text, _error_index(text, error))


def _line(text: str, index: int) -> int:
    return 1 + text.count("\n", 0, max(index, 0))
