"""The step: a Prefect task inside a flow run, the plain function everywhere else.

One readable body serves the laptop without a server and the page of a Prefect server, where each step is a line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def step(function: Callable[P, R]) -> Callable[P, R]:
    """Give a function a line of its own on Prefect's page when a flow run calls it.

    Arguments are neither hashed nor stored (no cache, nothing persisted), so that connections and models may be passed;
    results stay in memory. A step is not retried: the run is, and it starts over.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _inside_flow_run():
            return function(*args, **kwargs)
        from prefect import task
        from prefect.cache_policies import NO_CACHE
        from prefect.utilities.annotations import quote as opaque

        as_task = task(
            _opened(function), name=function.__name__.replace("_", " "), cache_policy=NO_CACHE, persist_result=False, retries=0
        )
        # Prefect walks containers and dataclasses for futures (0.15 ms a dict); what is quoted it leaves alone.
        result: R = as_task(opaque((args, kwargs)))
        return result

    return call


def _opened(function: Callable[P, R]) -> Callable[[object], R]:
    @functools.wraps(function)
    def run(packed: object) -> R:
        args, kwargs = packed.unquote() if hasattr(packed, "unquote") else packed  # type: ignore[attr-defined,misc]
        return function(*args, **kwargs)

    # Prefect reads the signature for its parameters: one packed argument, not the function's own.
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


def _inside_flow_run() -> bool:
    """Say whether a Prefect flow run is on the stack, without importing Prefect (2-6 s) where there is none."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None
