"""`prescore doctor`: what is wrong with an installation, what that means for readers, what to do, and with --fix what is safe."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks import installation
from tasks.errors import PrescoreError
from tasks.installation import Examination, Symptom
from tasks.pipeline import Pipeline, find_pipeline, pipeline_names
from tasks.settings import Settings


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
    declared, broken = _declared(settings)
    examination = installation.examine(url, declared, broken)
    if not fix:
        return Diagnosis(examination=examination)
    done = installation.treat(url, examination)
    return Diagnosis(examination=installation.examine(url, declared, broken), done=done)


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
