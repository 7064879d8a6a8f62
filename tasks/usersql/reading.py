"""One SELECT of a user, as it stands in its file or in pipeline.toml."""

from __future__ import annotations

from dataclasses import dataclass

from pglast import scan
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
    start, end = 0, len(body)
    if len(statements) == 1:
        begins = statements[0].stmt_location
        end = begins + statements[0].stmt_len if statements[0].stmt_len else end
        # A semicolon before the statement ends an empty one; a comment before it stays.
        start = begins if any(token.name == "ASCII_59" for token in scan(body[:begins])) else 0
    begun = body[start:end].lstrip(_WHITESPACE)
    line = 1 + body[: end - len(begun)].count("\n")
    return UserQuery(text=begun.rstrip(_WHITESPACE), origin=origin, line=line)
