"""Going back to an earlier model version: find it, try whether it still fits, move the alias."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from tasks import fitness, registry
from tasks.database import connect, resolve_source_url, resolve_url
from tasks.errors import VersionUnfit
from tasks.pipeline import Pipeline, load_pipelines
from tasks.registry import ModelUser, StepBack
from tasks.settings import Settings

logger = logging.getLogger("prescore.models")


@dataclass(frozen=True, kw_only=True)
class WentBack:
    """What a rollback of a model's alias did."""

    model: str
    alias: str
    #: What the alias names now.
    version: int
    #: What it named before.
    before: int
    #: Where the next rollback would lead; None when there is nothing before.
    earlier: int | None
    #: Pipelines whose code and features the version was tried with; empty when none of them is declared here.
    tried: tuple[str, ...]
    #: Pipelines that score with the alias, and what they serve.
    users: tuple[ModelUser, ...]


def roll_back(settings: Settings, name: str, *, alias: str, because: str | None = None) -> WentBack:
    """Let an alias of a model name the version again that it named before its last promotion; nothing is scored.

    Raises
    ------
    NothingBefore, VersionUnfit, AliasMoved
        The alias is as it was.
    """
    url = resolve_url(settings)
    step = find_step_back(url, name, alias)
    pipelines = find_pipelines(settings, name)
    tried = require_fit(url, step, pipelines, resolve_source_url(settings, url))
    users, earlier = move_back(url, step, because)
    logger.info("%s %s went back from version %s to %s", name, alias, step.current.version, step.to.version)
    return WentBack(
        model=name,
        alias=alias,
        version=step.to.version,
        before=step.current.version,
        earlier=earlier,
        tried=tried,
        users=users,
    )


def find_step_back(url: str, name: str, alias: str) -> StepBack:
    """Find the version that the alias named before, by its history."""
    with connect(url, "prescore models") as connection:
        return registry.step_back(connection, name, alias)


def find_pipelines(settings: Settings, name: str) -> list[Pipeline]:
    """Return the pipelines of this folder that have this model."""
    declared = load_pipelines(settings.pipelines_dir).values()
    return [pipeline for pipeline in declared if pipeline.model.name == name]


def require_fit(url: str, step: StepBack, pipelines: list[Pipeline], source_url: str) -> tuple[str, ...]:
    """Try the version with each pipeline that scores with the alias, and return their names.

    Where none does, only its digest is compared: whose code it needs is not known.
    """
    scoring = [pipeline for pipeline in pipelines if pipeline.model.alias == step.alias]
    with connect(url, "prescore models") as connection:
        if not scoring:
            registry.require_intact(connection, step.to)
        for pipeline in scoring:
            problems = fitness.misfits(connection, step.to, pipeline, source_url)
            if problems:
                raise VersionUnfit(step.to.name, step.alias, step.current.version, step.to.version, problems)
    return tuple(pipeline.name for pipeline in scoring)


def move_back(url: str, step: StepBack, because: str | None) -> tuple[tuple[ModelUser, ...], int | None]:
    """Move the alias if it is still where it was, and return who scores with it and where the next step would lead."""
    with connect(url, "prescore models") as connection:
        registry.go_back(connection, step, because or f"went back from version {step.current.version}")
        users = registry.list_users(connection, step.to.name, step.alias)
        earlier = registry.version_before(registry.alias_history(connection, step.to.name), step.alias)
        connection.commit()
    return users, earlier
