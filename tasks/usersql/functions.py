"""PostgreSQL's own functions that a query of a user should not call: they read a clock, toss a coin, or do something.

A READ ONLY transaction keeps a query from changing rows; it keeps nobody from waiting, from taking locks, from changing
settings of the session, or from ending other sessions. What a function of the user's own does is not seen here: if it
writes, PostgreSQL refuses it when it is run.
"""

from __future__ import annotations

from typing import Any

from pglast import ast
from pglast.enums import SQLValueFunctionOp

from tasks.usersql.tree import is_node

_CLOCK = frozenset({"now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday"})
_CHANCE = frozenset(
    {
        "random",
        "random_normal",
        "setseed",
        "gen_random_uuid",
        "gen_random_bytes",
        "uuidv4",
        "uuidv7",
        "uuid_generate_v1",
        "uuid_generate_v1mc",
        "uuid_generate_v4",
    }
)
_CLOCK_WORDS = frozenset({"now", "today", "tomorrow", "yesterday"})
_TIME_TYPES = frozenset({"date", "time", "timetz", "timestamp", "timestamptz"})
_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "unknown", "cstring", "name"})
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

#: Function -> what a call of it does.
_EFFECTS = {
    "nextval": "moves a sequence",
    "setval": "moves a sequence",
    "set_config": "changes a setting of the session that it is read in",
    "pg_terminate_backend": "ends another session",
    "pg_cancel_backend": "cancels a statement of another session",
    "pg_notify": "sends a notification",
    "pg_logical_emit_message": "writes to the log of changes",
    "pg_reload_conf": "makes the server read its settings again",
    "pg_rotate_logfile": "changes the server's log",
    "pg_switch_wal": "changes the server's log of changes",
    "pg_promote": "promotes a standby",
    "pg_import_system_collations": "creates collations",
    "lo_creat": "creates a large object",
    "lo_create": "creates a large object",
    "lo_from_bytea": "creates a large object",
    "lo_import": "creates a large object",
    "lo_export": "writes a file on the server",
    "lo_put": "changes a large object",
    "lo_truncate": "changes a large object",
    "lo_truncate64": "changes a large object",
    "lo_unlink": "removes a large object",
    "lowrite": "changes a large object",
    "dblink_exec": "runs a statement in another database",
    "dblink_send_query": "runs a statement in another database",
    "dblink_open": "opens a cursor in another database",
    "dblink_connect": "opens a connection to another database",
    "dblink_connect_u": "opens a connection to another database",
}
#: Beginning of the names of a family -> what a call of one does. Names that begin with pg_ are PostgreSQL's own.
_FAMILIES = {
    "pg_sleep": "waits, and the run with it",
    "pg_advisory_": "takes or frees a lock",
    "pg_try_advisory_": "takes a lock",
    "pg_stat_reset": "clears statistics of the server",
    "pg_create_": "creates something on the server",
    "pg_drop_": "drops something on the server",
    "pg_replication_": "changes the server's replication",
    "pg_wal_replay_": "stops or starts a standby",
    "pg_file_": "writes files on the server",
}
#: Extensions put their functions where they are told to; these names are nobody else's.
_OF_EXTENSIONS = ("dblink",)


def clock_reading(node: Any) -> str | None:
    """Return how a node reads the clock, in the words of SQL, or None."""
    if is_node(node, ast.SQLValueFunction):
        return _CLOCK_VALUES.get(node.op)
    if is_node(node, ast.TypeCast):
        return _clock_word(node.arg) if node.typeName.names[-1].sval in _TIME_TYPES else None
    name = function_name(node)
    arguments: tuple[Any, ...] = getattr(node, "args", None) or ()
    if name in _CLOCK and not arguments:
        return f"{name}()"
    if name == "age" and len(arguments) == 1:
        return "age() with one argument"
    return _clock_word(arguments[0]) if name in _TIME_TYPES and len(arguments) == 1 else None


def chance(node: Any) -> str | None:
    """Return the function of a call whose result nobody can repeat, or None."""
    name = function_name(node)
    return f"{name}()" if name in _CHANCE else None


def effect(node: Any) -> tuple[str, str] | None:
    """Return the function of a call that does something, and what it does, or None."""
    name = function_name(node)
    if name is None:
        return None
    family = (what for beginning, what in _FAMILIES.items() if name.startswith(beginning))
    found = _EFFECTS.get(name) or next(family, None)
    return None if found is None else (f"{name}()", found)


def reads_elsewhere(node: Any) -> str | None:
    """Return the function of a call that hands a text to another database, where it is run unjudged, or None."""
    name = function_name(node)
    return f"{name}()" if name in {"dblink", "dblink_fetch", "dblink_get_result"} else None


def function_name(node: Any) -> str | None:
    """Return the name of the function that a node calls if it may be PostgreSQL's own, and None otherwise."""
    if not is_node(node, ast.FuncCall):
        return None
    parts = [part.sval for part in node.funcname]
    name: str = parts[-1]
    own = len(parts) == 1 or parts[0] == "pg_catalog" or name.startswith(_OF_EXTENSIONS)
    return name if own else None


def _clock_word(node: Any) -> str | None:
    """Return the word, such as 'now', that becomes a time when it is cast to one."""
    while is_node(node, ast.TypeCast) and node.typeName.names[-1].sval in _TEXT_TYPES:
        node = node.arg
    if not is_node(node, ast.A_Const) or not is_node(node.val, ast.String):
        return None
    word = node.val.sval.strip().lower()
    # 'today 12:00' and 'tomorrow allballs' read the clock too.
    return f"'{word}'" if _CLOCK_WORDS & set(word.split()) else None
