"""The tree that PostgreSQL's own parser makes of a text: its nodes, their places, and the tree as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pglast import ast, parse_sql
from pglast.parser import ParseError

from tasks.errors import SqlInvalid

TOO_DEEP = "is nested too deeply to be judged; split it into CTEs"


def parse(text: str) -> tuple[Any, ...]:
    """Return the statements of a text; ``ParseError`` when it is no SQL."""
    # The parser is written in C and stops at a NUL; what follows it must not go unseen.
    statements: tuple[Any, ...] = parse_sql(text.replace("\x00", " "))
    return statements


def normalise(text: str) -> str:
    """Return the query's parse tree as text: the same for other whitespace, comments or case of keywords.

    Raises
    ------
    SqlInvalid
        When the text is no SQL.
    """
    try:
        statements = parse(text)
    except ParseError as error:
        raise SqlInvalid("query", error_line(text, error), reason_of(error)) from None
    try:
        return json.dumps([plain(statement.stmt) for statement in statements], separators=(",", ":"))
    except RecursionError:
        raise SqlInvalid("query", None, TOO_DEEP) from None


def is_node(node: Any, kind: type[Any]) -> bool:
    """Return whether a node is of this kind.

    Unlike isinstance, it leaves the type open: what the parser may leave out in theory is there in these shapes.
    """
    return isinstance(node, kind)


def nodes(root: Any) -> Iterator[Any]:
    """Yield a node and all below it, in no particular order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting.extend(node)
        elif isinstance(node, ast.Node):
            yield node
            waiting.extend(getattr(node, name) for name in node)


def plain(node: Any) -> Any:
    """Return a tree of lists and dictionaries, without places in the text and without what has its default."""
    if isinstance(node, tuple):
        return [plain(item) for item in node]
    if is_node(node, ast.Node):
        tree: dict[str, Any] = {"@": type(node).__name__}
        for name, slot in type(node).__slots__.items():
            value = getattr(node, name)
            if value is None or value is False or value == () or slot.c_type == "ParseLoc" or name == "location":
                continue
            tree[name] = plain(value)
        return tree
    return node.name if hasattr(node, "name") else node


def location_of(node: Any) -> int | None:
    """Return the index in the text at which a node, or the first node in it that knows its place, begins."""
    if isinstance(node, tuple):
        found = [place for place in map(location_of, node) if place is not None]
        return min(found) if found else None
    if not isinstance(node, ast.Node):
        return None
    own = getattr(node, "location", None)
    if own is not None and own >= 0:
        return int(own)
    return location_of(tuple(getattr(node, name) for name in node))


def reason_of(error: ParseError) -> str:
    """Return the parser's own words."""
    return str(error.args[0])


def error_index(text: str, error: ParseError) -> int:
    """Return where the parser stopped.

    It counts characters, and pglast corrects for bytes once too often. With every other character made an x, which is
    the same to the grammar, both agree.
    """
    ascii_only = "".join(character if character.isascii() else "x" for character in text)
    try:
        parse(ascii_only)
    except ParseError as same:
        error = same
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0


def error_line(text: str, error: ParseError) -> int:
    """Return the line at which the parser stopped, from 1."""
    return line_of(text, error_index(text, error))


def line_of(text: str, index: int) -> int:
    """Return the line of an index, from 1."""
    return 1 + text.count("\n", 0, max(index, 0))
