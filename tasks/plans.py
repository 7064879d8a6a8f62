"""Plans: what PostgreSQL's planner makes of a query. Which tables it reads, and which large ones whole for want of an index.

The planner is asked, nothing is run. It sees through views and leaves out what a query only seems to read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pglast import ast
from pglast.enums import A_Expr_Kind, BoolExprType
from pglast.parser import ParseError

from tasks.database import literal, load_query, quote
from tasks.transport import Session
from tasks.usersql.naming import written
from tasks.usersql.tree import is_node, nodes, parse

# Below this, reading a table whole takes a few milliseconds, and an index would gain nothing that anybody notices.
LARGE_BYTES = 8 * 1024 * 1024
# An index on a column does not help where more rows than this share are wanted: PostgreSQL would read the table anyway.
WANTED_SHARE = 0.2

_TIMES = frozenset({"timestamptz", "timestamp", "date"})
_RANGE, _EQUAL = frozenset({"<", ">", "<=", ">="}), frozenset({"="})
# Steps that hand on the rows of a scan as they are.
_PASSING = frozenset({"Hash", "Sort", "Incremental Sort", "Gather", "Gather Merge", "Materialize", "Memoize"})
_CONDITIONS = ("Hash Cond", "Merge Cond", "Join Filter")
_JOINS = frozenset({"Nested Loop", "Hash Join", "Merge Join"})
# Steps that make one row of several, or know the rows beside one: a condition on their result does not reach the rows.
_GROUPING = frozenset({"Aggregate", "Group", "Unique", "WindowAgg"})
_SORTED = re.compile(r" (?:DESC|ASC|USING \S+)?(?: ?NULLS (?:FIRST|LAST))?$")
# (InitPlan 1).col1, (hashed SubPlan 2).col1: values that are known when the query runs. They are no SQL.
_LATER = re.compile(r"\((?:hashed )?(?:InitPlan|SubPlan) [^()]*\)(?:\.col\d+)?")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table as the catalogue knows it; a partition has the name of the whole table."""

    schema: str
    name: str
    bytes: int
    #: Rows as of the last ANALYZE; 0 when it was never analysed.
    rows: float
    #: Columns that an index begins with.
    leading: frozenset[str]

    @property
    def shown(self) -> str:
        """``schema.table``, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class WholeRead:
    """A large table that is read from one end to the other."""

    relation: Relation
    #: Columns that an index would have to begin with; empty when expressions are compared, which no plain index answers.
    columns: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """The statements that create the indexes."""
        table = f"{written(self.relation.schema)}.{written(self.relation.name)}"
        return "; ".join(f"CREATE INDEX ON {table} ({written(column)})" for column in self.columns)


@dataclass(frozen=True)
class Plan:
    """The plan of a statement, and the tables in it as the catalogue knows them, by name in the plan."""

    root: Any
    relations: dict[tuple[str, str], Relation]

    @property
    def cost(self) -> float:
        """What the planner reckons that the whole statement costs, in its own unit."""
        return float(self.root["Total Cost"])

    @property
    def tables(self) -> set[str]:
        """``schema.table`` of what is read, views seen through, partitions counted as their table."""
        return {relation.shown for relation in self.relations.values()}

    def scans(self) -> Iterator[tuple[Any, Relation]]:
        """Yield the nodes that read a large table whole."""
        for node in _below(self.root):
            found = _relation_of(node, self.relations)
            if node.get("Node Type") == "Seq Scan" and found is not None and found.bytes >= LARGE_BYTES:
                yield node, found


def explain(session: Session, statement: str, what: str) -> Plan:
    """Return what the planner makes of a statement."""
    explained = session.table(load_query("explain_statement", {"statement": statement}), what, copy=False)
    root = json.loads(explained.column(0)[0].as_py())[0]["Plan"]
    names = {(n["Schema"], n["Relation Name"]) for n in _below(root) if "Relation Name" in n}
    return Plan(root=root, relations=_describe(session, sorted(names)))


def read_from_end_to_end(plan: Plan) -> set[Relation]:
    """Return the large tables that are read whole, or along an index without a condition on it."""
    along = (
        _relation_of(node, plan.relations)
        for node in _below(plan.root)
        if node.get("Node Type") in {"Index Scan", "Index Only Scan"} and "Index Cond" not in node
    )
    read = {relation for _, relation in plan.scans()}
    return read | {relation for relation in along if relation is not None and relation.bytes >= LARGE_BYTES}


def read_whole_for_times(plan: Plan) -> list[WholeRead]:
    """Return the large tables that are read whole although a time of their rows is compared with an instant."""
    found = []
    for node, relation in plan.scans():
        for expression in _expressions(node.get("Filter")):
            wanted = _missing_for_times(expression, relation)
            expected = node["Plan Rows"] > WANTED_SHARE * relation.rows > 0
            if wanted is not None and not (wanted and expected and _constant(expression)):
                found.append(WholeRead(relation=relation, columns=tuple(sorted(wanted))))
    return _one_for_each(found)


def read_whole_for_keys(plan: Plan) -> list[WholeRead]:
    """Return the large tables that are read whole although their rows are joined by a column with a few others."""
    large = {id(node): relation for node, relation in plan.scans()}
    conditions = {id(node): [node.get("Filter")] for node, _ in plan.scans()}
    for join in _below(plan.root):
        joined = [join[name] for name in _CONDITIONS if name in join]
        sides = join.get("Plans", ())[:2] if joined else ()
        for child, other in zip(sides, sides[::-1], strict=True):
            scan = _passed_on(child)
            if id(scan) in conditions and not other["Plan Rows"] > WANTED_SHARE * large[id(scan)].rows > 0:
                conditions[id(scan)] += joined
    found = []
    for node, relation in plan.scans():
        texts = conditions[id(node)]
        columns = {c for text in texts for e in _expressions(text) for c in _joined_columns(e, node["Alias"])}
        if columns and not columns & relation.leading:
            found.append(WholeRead(relation=relation, columns=(min(columns),)))
    return _one_for_each(found)


def read_whole_for_groups(plan: Plan) -> list[WholeRead]:
    """Return the large tables whose rows are all grouped, or numbered, by a column before the result is joined by it.

    PostgreSQL does not look for the few rows of an entity within such a subquery, whatever indexes there are.
    """
    found = []
    for join in _below(plan.root):
        if join.get("Node Type") not in _JOINS:
            continue
        named = {
            _column(column)
            for name in (*_CONDITIONS, "Filter")
            for expression in _expressions(join.get(name))
            for column in nodes(expression)
            if is_node(column, ast.ColumnRef)
        }
        for child in join.get("Plans", ()):
            for grouping in _until_joins(child):
                key = _first_key(grouping)
                if key in named and key is not None:
                    scans = (_relation_of(n, plan.relations) for n in _until_joins(grouping) if _is_whole(n))
                    found += [
                        WholeRead(relation=relation, columns=(key,))
                        for relation in scans
                        if relation is not None and relation.bytes >= LARGE_BYTES
                    ]
    return _one_for_each(found)


def _is_whole(node: Any) -> bool:
    return node.get("Node Type") in {"Seq Scan", "Index Only Scan", "Index Scan"} and "Index Cond" not in node


def _until_joins(node: Any) -> Iterator[Any]:
    """Yield a node and what is below it, but nothing that is joined there, and nothing that is asked beside it."""
    yield node
    if node.get("Node Type") not in _JOINS:
        for child in node.get("Plans", ()):
            if child.get("Parent Relationship") not in {"InitPlan", "SubPlan"}:
                yield from _until_joins(child)


def _first_key(node: Any) -> str | None:
    """Return the column by which a step groups or numbers first; None where it does not, or not by a plain column."""
    if node.get("Node Type") not in _GROUPING:
        return None
    keys = node.get("Group Key")
    if keys is None and node["Node Type"] in {"Unique", "WindowAgg"}:
        keys = next((child["Sort Key"] for child in node["Plans"] if "Sort Key" in child), None)
    for expression in _expressions(_SORTED.sub("", keys[0]) if keys else None):
        return _column(expression)
    return None


def _describe(session: Session, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Relation]:
    if not names:
        return {}
    asked = {f"{quote(schema)}.{quote(name)}": (schema, name) for schema, name in names}
    relations = f"ARRAY[{', '.join(literal(text) for text in asked)}]::text[]"
    found = session.table(load_query("describe_relations", {"relations": relations})).to_pylist()
    return {
        asked[row["relation"]]: Relation(
            schema=row["schema"],
            name=row["name"],
            bytes=row["bytes"],
            rows=row["rows"],
            leading=frozenset(row["leading"] or ()),
        )
        for row in found
    }


def _below(node: Any) -> Iterator[Any]:
    yield node
    for child in node.get("Plans", ()):
        yield from _below(child)


def _relation_of(node: Any, relations: dict[tuple[str, str], Relation]) -> Relation | None:
    return relations.get((node.get("Schema", ""), node.get("Relation Name", "")))


def _passed_on(node: Any) -> Any:
    while node.get("Node Type") in _PASSING and node.get("Plans"):
        node = node["Plans"][0]
    return node


def _one_for_each(found: Sequence[WholeRead]) -> list[WholeRead]:
    """Return one finding for a table, with the columns of all its partitions and scans."""
    by_table: dict[str, WholeRead] = {}
    for read in found:
        before = by_table.get(read.relation.shown)
        columns = read.columns if before is None else tuple(sorted({*before.columns, *read.columns}))
        by_table[read.relation.shown] = WholeRead(relation=read.relation, columns=columns)
    return [by_table[name] for name in sorted(by_table)]


# Conditions as the planner prints them -------------------------------------------------------------------------------


def _expressions(condition: str | None) -> list[Any]:
    """Return the tree of a condition of a plan; none when it holds what is no SQL."""
    if condition is None:
        return []
    try:
        return [parse(f"SELECT {_LATER.sub('NULL', condition)}")[0].stmt.targetList[0].val]
    except ParseError:
        return []


def _missing_for_times(node: Any, relation: Relation) -> set[str] | None:
    """Return the columns that lack an index, empty where expressions are compared; None where no index is missed."""
    if is_node(node, ast.BoolExpr) and node.boolop != BoolExprType.NOT_EXPR:
        parts = [_missing_for_times(part, relation) for part in node.args]
        if node.boolop == BoolExprType.OR_EXPR:
            # One arm that no index can answer, and the table is read whole anyway.
            return None if not all(_compares_time(part) for part in node.args) else _union(parts)
        compared = [part for part, one in zip(parts, node.args, strict=True) if _compares_time(one)]
        return None if any(part is None for part in compared) else _union(compared)
    if not _compares_time(node):
        return None
    column = _column(node.lexpr) or _column(node.rexpr)
    if column is None:
        return set()
    return None if column in relation.leading else {column}


def _union(parts: Sequence[set[str] | None]) -> set[str] | None:
    there = [part for part in parts if part is not None]
    return set().union(*there) if there else None


def _compares_time(node: Any) -> bool:
    """Return whether a condition compares rows with an instant by <, >, <= or >=, or is made of such ones."""
    if is_node(node, ast.BoolExpr) and node.boolop != BoolExprType.NOT_EXPR:
        compared = [_compares_time(part) for part in node.args]
        return all(compared) if node.boolop == BoolExprType.OR_EXPR else any(compared)
    sides = _sides(node, _RANGE)
    return any(_instant(one) and not _instant(other) for one, other in (sides, sides[::-1])) if sides else False


def _joined_columns(node: Any, alias: str) -> Iterator[str]:
    """Yield the columns of a relation that a condition sets equal to those of another."""
    if is_node(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        for part in node.args:
            yield from _joined_columns(part, alias)
        return
    sides = _sides(node, _EQUAL)
    for one, other in (sides, sides[::-1]) if sides else ():
        others = [part for part in nodes(other) if is_node(part, ast.ColumnRef)]
        if _column(one) and _qualifier(one) == alias and others and all(_qualifier(each) != alias for each in others):
            yield _column(one) or ""


def _sides(node: Any, operators: frozenset[str]) -> tuple[Any, Any] | None:
    if not is_node(node, ast.A_Expr) or node.kind != A_Expr_Kind.AEXPR_OP or node.name[-1].sval not in operators:
        return None
    return (node.lexpr, node.rexpr) if node.lexpr is not None else None


def _constant(node: Any) -> bool:
    """Return whether the planner knew what rows are compared with, and so how many it has to expect."""
    if is_node(node, ast.BoolExpr):
        return all(_constant(part) for part in node.args)
    sides = _sides(node, _RANGE)
    return not any(is_node(part, ast.ParamRef) or _is_null(part) for part in nodes(sides or ()))


def _instant(node: Any) -> bool:
    """Return whether a value is a time that does not depend on the row: a constant, or known when the query runs."""
    parts = list(nodes(node))
    timed = any(is_node(part, ast.TypeCast) and part.typeName.names[-1].sval in _TIMES for part in parts)
    known = timed or any(is_node(part, ast.ParamRef) or _is_null(part) for part in parts)
    return known and not any(is_node(part, ast.ColumnRef) for part in parts)


def _is_null(node: Any) -> bool:
    return is_node(node, ast.A_Const) and bool(node.isnull)


def _bare(node: Any) -> Any:
    """Return a node without casts to text, which the planner adds to a varchar and an index sees through."""
    while is_node(node, ast.TypeCast) and node.typeName.names[-1].sval == "text":
        node = node.arg
    return node


def _column(node: Any) -> str | None:
    node = _bare(node)
    return node.fields[-1].sval if is_node(node, ast.ColumnRef) else None


def _qualifier(node: Any) -> str | None:
    node = _bare(node)
    return node.fields[0].sval if is_node(node, ast.ColumnRef) and len(node.fields) > 1 else None
