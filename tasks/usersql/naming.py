"""Names in SQL: those of the columns that a SELECT returns, as PostgreSQL derives them, and how a name is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.enums import SetOperation, SubLinkType
from pglast.keywords import RESERVED_KEYWORDS, TYPE_FUNC_NAME_KEYWORDS

from tasks.database import quote
from tasks.usersql.tree import is_node

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def written(name: str) -> str:
    """Return a name as SQL needs it: in quotes where it would not be itself without."""
    plain = _PLAIN_NAME.fullmatch(name) and name not in RESERVED_KEYWORDS | TYPE_FUNC_NAME_KEYWORDS
    return name if plain else quote(name)


def output_names(statement: Any) -> Iterator[str | None]:
    """Yield the name of each column, None where it cannot be seen here (``*``)."""
    while statement.op != SetOperation.SETOP_NONE:
        statement = statement.larg
    for target in statement.targetList or ():
        value = target.val
        parts = value.fields if is_node(value, ast.ColumnRef) else getattr(value, "indirection", None)
        if parts and is_node(parts[-1], ast.A_Star):
            yield None
        else:
            yield target.name or _derived_name(value)[0] or "?column?"


def _derived_name(node: Any) -> tuple[str | None, bool]:
    """Return the name that an expression without AS gets, and whether it is strong: a type name yields to that one."""
    named: tuple[str | None, bool] = (None, False)
    if is_node(node, ast.ColumnRef):
        named = _last_name(node.fields)
    elif is_node(node, ast.A_Indirection):
        named = _last_name(node.indirection)
        if named[0] is None:
            named = _derived_name(node.arg)
    elif is_node(node, ast.FuncCall):
        named = (node.funcname[-1].sval, True)
    elif is_node(node, ast.A_Expr) and node.kind.name == "AEXPR_NULLIF":
        named = ("nullif", True)
    elif is_node(node, ast.TypeCast):
        inner = _derived_name(node.arg)
        named = inner if inner[1] else (node.typeName.names[-1].sval, False)
    elif is_node(node, ast.CollateClause):
        named = _derived_name(node.arg)
    elif is_node(node, ast.CaseExpr):
        inner = _derived_name(node.defresult)
        named = inner if inner[1] else ("case", False)
    elif is_node(node, ast.SubLink):
        named = _sublink_name(node)
    elif is_node(node, ast.SQLValueFunction):
        named = (node.op.name.removeprefix("SVFOP_").removesuffix("_N").lower(), True)
    elif is_node(node, ast.MinMaxExpr):
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
    names = [part.sval for part in parts if is_node(part, ast.String)]
    return (names[-1], True) if names else (None, False)


def _sublink_name(node: Any) -> tuple[str | None, bool]:
    if node.subLinkType == SubLinkType.EXISTS_SUBLINK:
        return "exists", True
    if node.subLinkType == SubLinkType.ARRAY_SUBLINK:
        return "array", True
    if node.subLinkType != SubLinkType.EXPR_SUBLINK:
        return None, False
    inner = next(output_names(node.subselect), None)
    return (inner, True) if inner not in {None, "?column?"} else (None, False)
