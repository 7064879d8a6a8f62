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
    """Give a function a line of its own on Prefect's page when a flow run calls it: ``load_model`` reads "load model".

    Prefect sees neither the arguments nor the result, so that connections, models and secrets may be passed. What the
    function raises is raised unchanged. A step is not retried: the next run is the retry, and it starts over.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not _inside_flow_run():
            return function(*args, **kwargs)
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        results: list[R] = []

        name = function.__name__.replace("_", " ")

        # No parameters and nothing returned: Prefect hashes, stores and searches for futures in whatever it is given
        # (0.15 ms a dictionary).
        @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False, retries=0)
        def line() -> None:
            results.append(function(*args, **kwargs))

        line()
        return results[0]

    return call


def _inside_flow_run() -> bool:
    """Say whether a Prefect flow run is on the stack, without importing Prefect (2-6 s) where there is none."""
    if "prefect" not in sys.modules:
        return False
    from prefect.context import FlowRunContext

    return FlowRunContext.get() is not None
