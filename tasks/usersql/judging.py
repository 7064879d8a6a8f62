"""What is wrong or doubtful with a query or a condition that a user wrote, and what to write instead."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pglast import ast, scan
from pglast.enums import CoercionForm, SubLinkType
from pglast.parser import ParseError

from tasks.errors import SqlInvalid
from tasks.usersql import functions
from tasks.usersql.naming import output_names
from tasks.usersql.reading import UserQuery
from tasks.usersql.tree import (
    TOO_DEEP,
    error_index,
    error_line,
    is_node,
    line_of,
    location_of,
    nodes,
    parse,
    reason_of,
)

#: Relations that prescore supplies, each to some queries. A CTE of such a name would be read in its place.
SUPPLIED = frozenset({"run", "batch", "since"})

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
_COLUMN = {"run": "run.as_of", "batch": "batch.as_of", "since": "since.at"}


class Severity(StrEnum):
    """How much a finding matters."""

    #: The query is refused.
    ERROR = "error"
    #: The query runs; what it returns may surprise.
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a look at a query found."""

    severity: Severity
    #: Stable word for programs: ``syntax``, ``limit``, ``clock``, ...
    code: str
    #: File and line, or key of pipeline.toml; empty for a condition, whose key its reader knows.
    place: str
    #: What was found, and what to write instead.
    sentence: str

    @property
    def message(self) -> str:
        """Where, what, and what to write instead."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


def judge(query: UserQuery, supplied: str, *, sampling: bool = False) -> list[Finding]:
    """Return what is wrong or doubtful with a query, errors first.

    Parameters
    ----------
    supplied
        The relation that it is given: ``run`` (it may do without), ``batch`` or ``since``.
    sampling
        Labels may be a sample: a LIMIT over the whole query is then a warning, not an error.
    """
    reading = _Reading(query=query, supplied=supplied, sampling=sampling)
    try:
        statements = parse(query.text)
    except ParseError as error:
        reading.refuse_syntax(error)
        return reading.findings
    if "\x00" in query.text:
        reading.refuse("syntax", "holds a NUL character. Remove it")
    elif len(statements) != 1:
        found = f"holds {len(statements)} statements" if statements else "holds no statement, or only comments"
        remedy = "Keep one of them" if statements else "Write it"
        reading.refuse("statements", f"{found}; exactly one SELECT is expected. {remedy}")
    elif not is_node(statements[0].stmt, ast.SelectStmt):
        kind = type(statements[0].stmt).__name__.removesuffix("Stmt").upper()
        reading.refuse(
            "not_select",
            f"is a statement of kind {kind}; exactly one SELECT is expected. Write what to read as a SELECT",
        )
    else:
        reading.read(statements[0].stmt)
    return sorted(reading.findings, key=lambda finding: finding.severity)


def judge_condition(text: str) -> list[Finding]:
    """Return what is wrong or doubtful with an SQL condition, errors first; findings have no place.

    Parentheses are counted too: ``true) OR (true`` parses inside parentheses and would leave them.
    """
    reading = _Reading(query=UserQuery(text=text, origin=""), supplied=None, sampling=False)
    problem = _expression_problem(text)
    if problem is not None:
        reading.refuse("syntax", problem)
    else:
        reading.look_through(parse(f"SELECT (\n{text}\n)")[0].stmt)
    return sorted(reading.findings, key=lambda finding: finding.severity)


def expression_problem(text: str) -> str | None:
    """Return why the text is not one SQL condition that only reads, or None when it is."""
    errors = [finding.sentence for finding in judge_condition(text) if finding.severity is Severity.ERROR]
    return errors[0] if errors else None


def tables(query: UserQuery) -> set[tuple[str | None, str]]:
    """Return (schema, name) of every table that the query names; its CTEs and the supplied relations are none.

    Raises
    ------
    SqlInvalid
        When the text is no SQL.
    """
    return _read(query).tables


def asks_when(query: UserQuery) -> bool:
    """Say whether an entity query reads ``run``, without which it lists the same entities for every as_of.

    Raises
    ------
    SqlInvalid
        When the text is no SQL.
    """
    return "run" in _read(query).referenced


def _read(query: UserQuery) -> _Reading:
    try:
        statements = parse(query.text)
    except ParseError as error:
        raise SqlInvalid(query.origin, error_line(query.text, error), reason_of(error)) from None
    reading = _Reading(query=query, supplied="run", sampling=True)
    try:
        reading.walk(tuple(statement.stmt for statement in statements), frozenset(), _Place.TOP)
    except RecursionError:
        raise SqlInvalid(query.origin, None, TOO_DEEP) from None
    return reading


def _expression_problem(text: str) -> str | None:
    if "\x00" in text or not text.strip():
        return "is empty" if not text.strip() else "holds a NUL character"
    try:
        depth = 0
        for token in scan(text):
            depth += {"ASCII_40": 1, "ASCII_41": -1}.get(token.name, 0)
            if depth < 0:
                return "closes a parenthesis that it did not open"
        statements = parse(f"SELECT (\n{text}\n)")
        with contextlib.suppress(ParseError):
            return "is a statement" if parse(text) else "is empty"
    except ParseError as error:
        return reason_of(error)
    statement = statements[0].stmt
    used = {name for name in statement if getattr(statement, name)}
    value: Any = statement.targetList[0].val if "targetList" in used else None
    several = is_node(value, ast.RowExpr) and value.row_format == CoercionForm.COERCE_IMPLICIT_CAST
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
    #: None for a condition, which is given no relation.
    supplied: str | None
    sampling: bool
    findings: list[Finding] = field(default_factory=list)
    tables: set[tuple[str | None, str]] = field(default_factory=set)
    referenced: set[str] = field(default_factory=set)

    def read(self, statement: Any) -> None:
        """Judge a whole query."""
        self.look_through(statement)
        if self.supplied in {"batch", "since"} and self.supplied not in self.referenced:
            self.refuse(
                "unreferenced",
                f"never reads the relation {self.supplied}, so that it cannot return {_WHAT_FOR[self.supplied]}. "
                f"Add FROM {self.supplied}",
            )
        names = list(output_names(statement))
        for name in sorted({name for name in names if name is not None and names.count(name) > 1}):
            self.refuse(
                "duplicate_column", f"returns {names.count(name)} columns named {name}. Give each a name with AS"
            )

    def look_through(self, statement: Any) -> None:
        """Judge all that a statement holds."""
        try:
            self.walk(statement, frozenset(), _Place.TOP)
        except RecursionError:
            self.findings = []
            self.refuse("syntax", TOO_DEEP)

    def walk(self, node: Any, scope: frozenset[str], place: _Place) -> None:
        """Visit a node and what is below it; ``scope`` holds the names of the CTEs that are visible there."""
        if isinstance(node, tuple):
            for item in node:
                self.walk(item, scope, place)
        elif is_node(node, ast.SelectStmt):
            self._select(node, scope, place)
        elif is_node(node, ast.Node):
            self._look(node, scope)
            inner = _place_below(node, place)
            below = self._with(node, scope, place)
            for name in node:
                if name != "withClause":
                    self.walk(getattr(node, name), below, inner)

    def _select(self, node: Any, scope: frozenset[str], place: _Place) -> None:
        self._limit(node, place)
        if node.intoClause is not None:
            self.refuse("into", "creates a table with INTO. Remove INTO; a query only reads", node.intoClause.rel)
        if node.lockingClause:
            self.refuse("locks", "locks rows with FOR UPDATE or FOR SHARE. Remove it; a query only reads")
        below = self._with(node, scope, place)
        for name in node:
            if name in {"larg", "rarg"}:
                self.walk(getattr(node, name), below, place)
            elif name not in {"withClause", "intoClause"}:
                # A subquery among the columns is evaluated per row; one in a condition may choose the rows.
                self.walk(getattr(node, name), below, _Place.PER_ROW if name == "targetList" else _within(node, place))

    def _with(self, node: Any, scope: frozenset[str], place: _Place) -> frozenset[str]:
        """Visit the CTEs of a statement and return the names that are visible in the rest of it."""
        clause = getattr(node, "withClause", None)
        if clause is None:
            return scope
        names = [cte.ctename for cte in clause.ctes]
        for cte in clause.ctes:
            if cte.ctename in SUPPLIED:
                self.refuse(
                    "shadow",
                    f"has a CTE named {cte.ctename}, which hides the relation {cte.ctename} that prescore supplies. "
                    "Give the CTE another name",
                    cte,
                )
            before = names if clause.recursive else names[: names.index(cte.ctename)]
            self.walk(cte.ctequery, scope.union(before), _within(cte.ctequery, place))
        return scope.union(names)

    def _look(self, node: Any, scope: frozenset[str]) -> None:
        if type(node) in _WRITES:
            self.refuse("writes", f"holds {_WRITES[type(node)]}. Remove it; a query only reads")
        elif is_node(node, ast.ParamRef):
            self.refuse("parameter", f"holds the parameter ${node.number}. {self._no_parameters()}", node)
        elif is_node(node, ast.RangeVar):
            self._relation(node, scope)
        elif is_node(node, ast.RangeTableSample):
            self._warn(
                "sample",
                "samples rows with TABLESAMPLE, so that two runs see other rows. Choose rows by their key",
                node,
            )
        else:
            self._function(node)

    def _relation(self, node: Any, scope: frozenset[str]) -> None:
        bare = node.schemaname is None and node.catalogname is None
        if bare and node.relname in scope:
            return
        if not bare or node.relname not in SUPPLIED:
            self.tables.add((node.schemaname, node.relname))
            return
        self.referenced.add(node.relname)
        if node.relname != self.supplied:
            given = f"; it is given {self.supplied}. Read {_COLUMN[self.supplied]}" if self.supplied else ". Remove it"
            self.refuse(
                "not_supplied",
                f"reads the relation {node.relname}, which it is not given{given}, or write the schema before the name "
                "if it is a table of yours",
                node,
            )

    def _function(self, node: Any) -> None:
        effect, clock = functions.effect(node), functions.clock_reading(node)
        chance, elsewhere = functions.chance(node), functions.reads_elsewhere(node)
        if effect is not None:
            self.refuse("effect", f"calls {effect[0]}, which {effect[1]}. Remove it; a query only reads", node)
        elif clock is not None and self.supplied is None:
            sentence = f"reads the clock with {clock}, so that it counts other rows for the same as_of. Leave time to "
            self._warn("clock", f"{sentence}watermark, warn_after and fail_after", node)
        elif clock is not None:
            sentence = f"reads the clock with {clock}, so that training and scoring see another time than as_of"
            self._warn("clock", f"{sentence}. Write {_COLUMN[self.supplied or 'run']} instead", node)
        elif chance is not None:
            self._warn(
                "random", f"calls {chance}, so that no run can be repeated. Derive it from the key instead", node
            )
        elif elsewhere is not None:
            self._warn(
                "elsewhere",
                f"hands a text to another database with {elsewhere}, where it is run unjudged and outside of the "
                "snapshot. Read a foreign table (postgres_fdw), or a copy that is loaded here",
                node,
            )

    def _limit(self, node: Any, place: _Place) -> None:
        words = [
            word for word, value in (("LIMIT", node.limitCount), ("OFFSET", node.limitOffset)) if _caps(value, word)
        ]
        if not words or place == _Place.PER_ROW:
            return
        written = " and ".join(words)
        if place == _Place.TOP and self.supplied == "run" and not self.sampling:
            self.refuse(
                "limit",
                f"has {written}, which leaves entities out without a word. Remove it, or say with WHERE whom to score",
                node,
            )
        elif place == _Place.TOP and self.supplied == "since":
            self.refuse(
                "limit",
                f"has {written}, which leaves changes out that no later run looks for. Remove it",
                node,
            )
        else:
            self._warn(
                "limit",
                f"has {written}, which may leave rows out without a word. Remove it, or pick rows per entity, in LATERAL "
                "or in a subquery among the columns",
                node,
            )

    def refuse_syntax(self, error: ParseError) -> None:
        """Refuse what is no SQL, with a word for what other tools would have filled in."""
        text = self.query.text
        line = self.query.line + (error_line(text, error) or 1) - 1
        rest = text[error_index(text, error) :]
        hint = ""
        if rest.startswith((":", "%")):
            hint = f". {self._no_parameters()}"
        elif rest.startswith("{"):
            hint = f". Nothing fills templates in. {self._no_parameters()}"
        elif rest.startswith("\\"):
            hint = ". Commands of psql are no SQL; remove them"
        place = f"{self.query.origin} line {line}"
        sentence = f"{reason_of(error)}{hint}"
        self.findings.append(Finding(severity=Severity.ERROR, code="syntax", place=place, sentence=sentence))

    def _no_parameters(self) -> str:
        if self.supplied is None:
            return "There are no parameters; write the value"
        return f"There are no parameters: read {_COLUMN[self.supplied]} from the relation {self.supplied}"

    def refuse(self, code: str, sentence: str, node: Any = None) -> None:
        """Add an error, at the place of a node."""
        self._add(Severity.ERROR, code, sentence, node)

    def _warn(self, code: str, sentence: str, node: Any) -> None:
        self._add(Severity.WARNING, code, sentence, node)

    def _add(self, severity: Severity, code: str, sentence: str, node: Any) -> None:
        location = location_of(node)
        known = location is not None and self.supplied is not None
        line = f" line {self.query.line + line_of(self.query.text, location or 0) - 1}" if known else ""
        place = f"{self.query.origin}{line}"
        self.findings.append(Finding(severity=severity, code=code, place=place, sentence=sentence))


def _place_below(node: Any, place: _Place) -> _Place:
    if is_node(node, ast.RangeSubselect):
        return _Place.PER_ROW if node.lateral else _within(node.subquery, place)
    if is_node(node, ast.SubLink):
        # A scalar subquery must not return more than one row, and EXISTS does not count them.
        if node.subLinkType in {SubLinkType.EXPR_SUBLINK, SubLinkType.EXISTS_SUBLINK}:
            return _Place.PER_ROW
        if node.subLinkType != SubLinkType.ARRAY_SUBLINK:
            return _Place.INNER
    return place


def _within(select: Any, place: _Place) -> _Place:
    """Return the place of what a SELECT reads and asks: what is evaluated per row stays so if it looks outside."""
    return place if place == _Place.PER_ROW and _looks_outside(select) else _Place.INNER


def _looks_outside(query: Any) -> bool:
    """Return whether a subquery names a column of a relation that is not its own: ``o.customer_id = b.customer_id``."""
    own: set[str] = set()
    used: set[str] = set()
    for node in nodes(query):
        if is_node(node, ast.Alias):
            own.add(node.aliasname)
        elif is_node(node, ast.RangeVar):
            own.add(node.relname)
        elif is_node(node, ast.ColumnRef) and len(node.fields) == 2 and is_node(node.fields[0], ast.String):
            used.add(node.fields[0].sval)
    return bool(used - own)


def _caps(value: Any, word: str) -> bool:
    """Return whether a LIMIT or OFFSET can leave rows out: LIMIT ALL, LIMIT NULL and OFFSET 0 cannot."""
    if value is None:
        return False
    if is_node(value, ast.A_Const):
        if value.isnull:
            return False
        return not (word == "OFFSET" and is_node(value.val, ast.Integer) and not value.val.ival)
    return True
