"""What is wrong with an installation, as people and programs are shown it."""

from __future__ import annotations

from datetime import UTC

from rich.console import Console

from flows.doctor import Diagnosis
from flows.show.parts import print_json
from tasks.installation import Symptom


def show_diagnosis(found: Diagnosis, *, as_json: bool) -> None:
    """Print what was found, the gravest first, and what was done about it."""
    examination = found.examination
    if as_json:
        print_json(
            {
                "well": examination.well,
                "database": examination.database,
                "server_version": examination.server_version,
                "prescore_version": examination.prescore_version,
                "python_version": examination.python_version,
                "revision": examination.revision,
                "examined_at": examination.examined_at.astimezone(UTC).isoformat(),
                "findings": [symptom.as_json() for symptom in examination.symptoms],
                "done": [{**symptom.as_json(), "done": told} for symptom, told in found.done],
            }
        )
        return
    _print(
        f"prescore {examination.prescore_version}, Python {examination.python_version}, PostgreSQL {examination.server_version}, "
        f"{examination.database}, revision {examination.revision or 'none'}"
    )
    for symptom, told in found.done:
        _print(f"  done     {symptom.code}: {told}")
    for symptom in examination.symptoms:
        _show(symptom)
    wrong = sum(symptom.wrong for symptom in examination.symptoms)
    if not examination.symptoms:
        _print("Nothing was found.")
        return
    fixable = sum(symptom.fixable for symptom in examination.symptoms)
    _print(
        f"{wrong} wrong, {len(examination.symptoms) - wrong} worth knowing."
        + (f" `prescore doctor --fix` mends {fixable} of them." if fixable else "")
    )


def _show(symptom: Symptom) -> None:
    since = "" if symptom.since is None else f" (since {symptom.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC)"
    of = "" if symptom.pipeline is None else f" {symptom.pipeline}"
    _print(f"{'WRONG   ' if symptom.wrong else 'worth knowing'} {symptom.code}{of}{since}")
    _print(f"    {symptom.what}")
    _print(f"    For readers: {symptom.means}")
    _print(f"    {symptom.remedy}")


def _print(line: str) -> None:
    Console(highlight=False, soft_wrap=True).print(line, markup=False)
