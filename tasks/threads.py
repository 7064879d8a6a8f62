"""Threads that compute: how many batches a model predicts at once, and how many threads it uses for each."""

from __future__ import annotations

from functools import partial
from typing import Any

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
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="openmp")


def _stateless(estimator: Any) -> bool:
    parts = [estimator]
    if hasattr(estimator, "get_params"):
        parts += list(estimator.get_params(deep=True).values())
    parts += [part.func for part in parts if isinstance(part, partial)]
    modules = {base.__module__ for part in parts for base in type(part).__mro__}
    modules |= {getattr(part, "__module__", None) or "builtins" for part in parts if callable(part)}
    return {module.split(".", 1)[0] for module in modules} <= _WITHOUT_STATE
