"""`prescore doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.options import AsJson, settings_now


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what is safe about what is found, and say what was done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with this installation, since when, what it means for readers and what to do; exit 3 if anything is."""
    from flows.doctor import diagnose
    from flows.show import show_diagnosis

    found = diagnose(settings_now(), fix=fix)
    show_diagnosis(found, as_json=as_json)
    raise typer.Exit(0 if found.examination.well else 3)
