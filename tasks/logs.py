"""Logs: lines that say which run they belong to, as text for people or as one JSON object a line for programs.

What a line is about is kept beside the code that logs, not in its messages: ``about`` opens it, ``note`` adds to it, threads
and workers ``adopt`` it. Importing it costs next to nothing.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from tasks.errors import PrescoreError
from tasks.settings import wants_json_logs

#: What a line may be about; the same words everywhere.
FIELDS = ("run_id", "pipeline", "mode", "trigger", "step", "generation", "model", "model_version", "shard")
#: Loggers of ours.
OURS = ("prescore", "tasks", "flows")

Fields = dict[str, Any]
# A dictionary that everybody in the run shares, so that a thread that was started earlier names the step of now.
_ABOUT: ContextVar[Fields | None] = ContextVar("what log lines are about", default=None)

# user:password@ in addresses, and password=... in the other form of them.
_SECRETS = (
    (re.compile(r"(\w://[^\s:/@]*):[^\s@/]*@"), r"\1:***@"),
    (
        re.compile(r"(?i)\b(password|passwd|token|api[_-]?key|secret)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)"),
        r"\1\2***",
    ),
)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Let lines within carry fields, beside those that they carry already; None is none."""
    before = _ABOUT.set({**(_ABOUT.get() or {}), **_known(fields)})
    try:
        yield
    finally:
        _ABOUT.reset(before)


def note(**fields: Any) -> None:
    """Add to what lines are about, or change it, until the innermost ``about`` ends; nothing outside of one."""
    current = _ABOUT.get()
    if current is not None:
        current.update(_known(fields))


def current() -> Fields | None:
    """Return what lines are about here, to be adopted elsewhere."""
    return _ABOUT.get()


def adopt(fields: Fields | None) -> None:
    """Let lines of this thread be about the same, from now on."""
    _ABOUT.set(fields)


def without_secrets(text: str) -> str:
    """Return a text in which passwords in addresses are stars; nothing of ours writes any, libraries may."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes records on stderr, each as one line of JSON.

    Prefect's console can be made of it: PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS=tasks.logs.JsonHandler; what it is given of
    formats and colours is not for programs.
    """

    def __init__(self, stream: Any = None, styles: Any = None, level: int | str = logging.NOTSET) -> None:
        super().__init__(stream)
        self.setLevel(level)
        super().setFormatter(_formatter())
        self.addFilter(add_fields)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - the name is logging's
        """Keep the format."""


def add_fields(record: logging.LogRecord) -> bool:
    """Give a record what lines are about here, but for what it says itself; a filter that lets everything through."""
    for name, value in (_ABOUT.get() or {}).items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def configure(*, verbose: bool = False, environ: Mapping[str, str] | None = None) -> bool:
    """Write lines of this process as JSON if the setting says so, and return whether it does.

    What runs is told from INFO on (from DEBUG on with ``verbose``), what other libraries say from WARNING on, and Python's
    warnings and uncaught exceptions are lines too.
    """
    if not wants_json_logs(environ):
        return False
    logging.basicConfig(level=logging.WARNING, handlers=[JsonHandler()], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _tell_uncaught
    threading.excepthook = _tell_uncaught_in_thread
    return True


def configure_ours() -> None:
    """Write our own lines as JSON if the setting says so, in a process that belongs to somebody else: a worker of a cluster."""
    if not wants_json_logs() or any(isinstance(handler, JsonHandler) for handler in logging.getLogger().handlers):
        return
    for name in OURS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, JsonHandler) for handler in logger.handlers):
            logger.addHandler(JsonHandler())
            logger.setLevel(logging.INFO)
            logger.propagate = False


def say(sentence: str, *, level: int = logging.INFO, **fields: Any) -> bool:
    """Log a sentence that is meant for people, where lines are JSON; return False where it has to be printed."""
    if not wants_json_logs():
        return False
    logging.getLogger("prescore").log(level, "%s", sentence, extra=fields)
    return True


def _known(fields: Fields) -> Fields:
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise KeyError(f"no log line has {', '.join(sorted(unknown))}")
    return {name: value for name, value in fields.items() if value is not None}


def _formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        """Time (UTC), level, logger and message, then what the line is about; what went wrong by its kind and place."""

        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            """Take secrets out of what libraries say, and what says nothing out of the line."""
            return {
                name: without_secrets(value) if isinstance(value, str) else value
                for name, value in log_data.items()
                if value is not None and name not in _NOISE
            }

        def formatException(self, ei: Any) -> Any:  # noqa: N802 - the name is logging's
            """Return the chain of exceptions: messages of ours, and of others only their kind, for they may hold data."""
            return _chain(ei[1])

    return Formatter(
        "%(levelname)s %(name)s %(message)s %(process)d",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        timestamp="time",
        json_default=str,
        json_ensure_ascii=False,
    )


# What Prefect's loggers add for its own handlers.
_NOISE = frozenset({"send_to_api", "color_message", "stack_info"})


def _chain(error: BaseException | None) -> list[dict[str, Any]]:
    found = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        told: dict[str, Any] = {"kind": type(error).__name__}
        if isinstance(error, PrescoreError):
            told["message"] = str(error)
        told["at"] = [f"{_module(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames[-12:]]
        found.append(told)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _module(path: str) -> str:
    """Return the end of a path: where an installation lies is nobody's business."""
    return "/".join(path.rsplit("/", 2)[-2:])


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("prescore").critical("%s ended the process", kind.__name__, exc_info=(kind, error, trace))


def _tell_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        logging.getLogger("prescore").error(
            "%s ended a thread",
            args.exc_type.__name__,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
        )
