"""Threads that compute: how many batches a model predicts at once, and how many threads it uses for each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Reading gives 550,000 to 650,000 rows a second, which eight threads predict with all but the largest models; each holds a
# batch and its frame, about 25 MB.
MOST_THREADS = 8

#: Libraries whose fitted estimators may predict in several threads at once: they keep nothing of what they are asked.
#: LightGBM and XGBoost have threads of their own for a batch; what a user wrote may keep things between calls.
_WITHOUT_STATE = {"builtins", "sklearn", "numpy", "scipy", "abc", "collections", "functools", "types", "tasks"}


def predicting_threads(estimator: Any) -> int:
    """Return how many batches an estimator may predict at once: one for each core, or 1 where it may not bear it.

    Batches side by side also share the parts of a prediction that use one core (encoding, scaling). For 100 boosted trees
    behind an encoder, nearly all of whose time is trees that OpenMP shares as well, it made no difference beyond the noise of the
    machine: 2,000,000 rows on two cores took 13.5 and 15.6 s with two batches at once, 13.8 s with one on two OpenMP threads, and
    14.2 s with three batches.
    """
    import joblib

    return min(joblib.cpu_count(), MOST_THREADS) if _stateless(estimator) else 1


def one_openmp_thread() -> None:
    """Let OpenMP compute with one thread when this thread asks it to; other threads keep theirs."""
    _pools(len(sys.modules)).limit(limits=1, user_api="openmp")


@contextmanager
def one_thread(user_api: str | None = None) -> Iterator[None]:
    """Let models compute with one thread: for a few rows the threads of busy cores cost far more than they give.

    Measured on two busy cores: 20 rows through a HistGradientBoosting of 100 trees took 0.3 s with all threads. ``user_api``
    is ``openmp`` where others predict beside: that limit is of this thread alone.
    """
    with _pools(len(sys.modules)).limit(limits=1, user_api=user_api):
        yield


@lru_cache(maxsize=1)
def _pools(modules: int) -> ThreadpoolController:
    """Return the thread pools of the libraries that are loaded: finding them takes 4 to 17 ms, longer than scoring a few rows.

    ``modules`` is how many are imported: there may be others when that has changed.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _stateless(estimator: Any) -> bool:
    parts = [estimator]
    if hasattr(estimator, "get_params"):
        parts += list(estimator.get_params(deep=True).values())
    parts += [part.func for part in parts if isinstance(part, partial)]
    modules = {base.__module__ for part in parts for base in type(part).__mro__}
    modules |= {getattr(part, "__module__", None) or "builtins" for part in parts if callable(part)}
    return {module.split(".", 1)[0] for module in modules} <= _WITHOUT_STATE
