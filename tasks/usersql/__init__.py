"""Queries that users write, judged on the tree that PostgreSQL's own parser makes of them.

A word in a string, a comment or a quoted name is no finding, because no text is searched.
"""

from tasks.usersql.judging import (
    SUPPLIED,
    Finding,
    Severity,
    asks_when,
    expression_problem,
    judge,
    judge_condition,
    tables,
)
from tasks.usersql.reading import UserQuery, read_query
from tasks.usersql.tree import normalise

__all__ = [
    "SUPPLIED",
    "Finding",
    "Severity",
    "UserQuery",
    "asks_when",
    "expression_problem",
    "judge",
    "judge_condition",
    "normalise",
    "read_query",
    "tables",
]
