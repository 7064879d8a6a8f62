"""One SELECT of a user, as it stands in its file or in pipeline.toml."""

from __future__ import annotations

from dataclasses import dataclass

from pglast.parser import ParseError

from tasks.usersql.tree import parse

_WHITESPACE = " \t\n\r\f\v"


@dataclass(frozen=True, kw_only=True)
class UserQuery:
    """One SELECT that a user wrote: without the whitespace around it, and without its semicolon."""

    text: str
    #: Where it stands: ``features.sql``, or ``pipeline.toml [entity] query``.
    origin: str
    #: Line of that place at which the text begins.
    line: int = 1


def read_query(text: str, origin: str) -> UserQuery:
    """Return the query of a file or of a TOML value.

    The end of a statement is where the parser sees it: in ``SELECT 1; -- done`` that is before the semicolon. What
    cannot be parsed, or holds more than one statement, is returned as it stands and refused by :func:`judge`.
    """
    body = text.removeprefix("\ufeff")
    try:
        statements = parse(body)
    except ParseError:
        statements = ()
    if len(statements) == 1 and statements[0].stmt_len:
        body = body[: statements[0].stmt_location + statements[0].stmt_len]
    begun = body.lstrip(_WHITESPACE)
    line = 1 + body[: len(body) - len(begun)].count("\n")
    return UserQuery(text=begun.rstrip(_WHITESPACE), origin=origin, line=line)
