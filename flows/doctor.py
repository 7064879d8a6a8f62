"""`prescore doctor`: what is wrong with an installation, what that means for readers, what to do, and with --fix what is safe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from tasks import installation
from tasks.database import describe_url, resolve_source_url
from tasks.errors import PrescoreError
from tasks.installation import Examination, Symptom
from tasks.pipeline import Pipeline, find_pipeline, pipeline_names
from tasks.settings import Settings


class NotPermitted(PrescoreError):
    """The role may not read what prescore keeps."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"This role may not read the schema prescore of {describe_url(url)}. Nothing was examined or changed. Work as the role "
            "that scores, or as an operator (`prescore grant --operator ROLE`)."
        )


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found, and what was done about it."""

    #: After what was done, if anything was.
    examination: Examination
    #: What was found before, and what became of it as a sentence; empty without --fix.
    done: list[tuple[Symptom, str]] = field(default_factory=list)


def diagnose(settings: Settings, *, fix: bool = False) -> Diagnosis:
    """Examine the installation, and with ``fix`` do what is safe and examine it again.

    A database that is not of this revision is examined as far as it can be, and nothing is done about it.

    Raises
    ------
    DatabaseUnreachable
    """
    url = settings.database_url
    if url is None:
        from tasks import embedded

        url = embedded.ensure_running(settings.data_dir)
    source_url = resolve_source_url(settings, url)
    declared, broken = _declared(settings)
    examination = _with_deployments(settings, _examined(url, source_url, declared, broken))
    if not fix:
        return Diagnosis(examination=examination)
    done = installation.treat(url, examination)
    again = _with_deployments(settings, _examined(url, source_url, declared, broken))
    return Diagnosis(examination=again, done=done)


def _examined(
    url: str, source_url: str, declared: dict[str, Pipeline], broken: dict[str, PrescoreError]
) -> Examination:
    try:
        return installation.examine(url, source_url, declared, broken)
    except sa.exc.ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != "42501":  # insufficient_privilege
            raise
        raise NotPermitted(url) from None


def _with_deployments(settings: Settings, examination: Examination) -> Examination:
    found = sorted((*examination.symptoms, *of_deployments(settings)), key=lambda symptom: not symptom.wrong)
    return replace(examination, symptoms=tuple(found))


def of_deployments(settings: Settings) -> Iterator[Symptom]:
    """Compare what is declared with what the Prefect server of PREFECT_API_URL is to start; nothing without one."""
    if not os.environ.get("PREFECT_API_URL"):
        return
    from flows.deploy import open_client, tagged
    from tasks.deployments import plan

    try:
        wanted = {deployment.name: deployment for deployment in plan(settings).deployments}
        with open_client() as client:
            there = dict(tagged(client))
    except PrescoreError as error:
        yield Symptom(
            code="prefect.unreachable",
            what=str(error).partition(". ")[0] + ".",
            means="Schedules do not fire; what was published goes stale.",
            remedy="Start the server, or correct PREFECT_API_URL.",
        )
        return
    for name, deployment in wanted.items():
        found = there.get(name)
        if found is None and deployment.schedules:
            what = f"{name} has schedules in pipeline.toml and no deployment on the Prefect server."
            yield _deployment("deployments.missing", what, deployment.pipeline, wrong=True)
        elif found is not None:
            paused = sorted(each.slug or "one" for each in found.schedules if not each.active)
            if found.paused or paused:
                what = f"{'All schedules' if found.paused else ', '.join(paused)} of {name} are paused on the Prefect server."
                yield _deployment("deployments.paused", what, deployment.pipeline, wrong=False)
    for name in sorted({*there} - {*wanted}):
        what = f"The Prefect server has {name}, which no folder declares."
        yield _deployment("deployments.stray", what, None, wrong=False)


def _deployment(code: str, what: str, pipeline: str | None, *, wrong: bool) -> Symptom:
    return Symptom(
        code=code,
        pipeline=pipeline,
        what=what,
        means="Nothing newer is published by that schedule." if pipeline else "Its runs fail.",
        remedy={
            "deployments.missing": "prescore deploy it, or let prescore serve run it.",
            "deployments.paused": "Resume them on Prefect's page if the pause is over.",
            "deployments.stray": f"prefect deployment delete {what.split()[4].rstrip(',')}",
        }[code],
        wrong=wrong,
    )


def _declared(settings: Settings) -> tuple[dict[str, Pipeline], dict[str, PrescoreError]]:
    declared: dict[str, Pipeline] = {}
    broken: dict[str, PrescoreError] = {}
    try:
        names = pipeline_names(settings.pipelines_dir)
    except PrescoreError as error:
        return {}, {str(settings.pipelines_dir): error}
    for name in names:
        try:
            declared[name] = find_pipeline(settings, name)
        except PrescoreError as error:
            broken[name] = error
    return declared, broken
