"""What a quarantine did to readers, and what its end did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.show.parts import print_json
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from tasks.quarantine import Quarantined, Released


def show_quarantine(done: Quarantined, *, as_json: bool) -> None:
    """Print what a quarantine did to readers, and what the next run will do."""
    if as_json:
        print_json(done)
        return
    since = f" already, since {shown(done.quarantined_at)} by {done.quarantined_by}" if done.already else ""
    generation = f"generation {done.generation_id}"
    lines = [f"{done.pipeline}: {generation} is quarantined{since}: {done.because}"]
    if done.effect == "rolled_back":
        lines.append(
            f"Readers see generation {done.returned_to} again"
            + (f" (undone: {', '.join(map(str, done.undone))})" if done.undone else "")
            + ". The next run scores what changed since then; nothing is pinned."
        )
    elif done.effect == "masked":
        if done.kept_because:
            lines.append(f"It cannot give way to an earlier one: {done.kept_because}.")
        lines.append(
            f"{done.masked:,} rows are hidden from readers. The next run scores them again; nothing is pinned."
        )
    else:
        lines.append("No row that is served was scored in it, so readers see no difference.")
    if done.next_version == done.model_version and done.effect != "unseen":
        lines.append(
            f"The next run scores with {done.model} {done.model_version} again. If the model is at fault, run "
            f"`prescore models rollback {done.model}` first."
        )
    _say(lines)


def show_release(done: Released, *, as_json: bool) -> None:
    """Print what the end of a quarantine did."""
    if as_json:
        print_json(done)
        return
    if not done.released:
        _say([f"{done.pipeline}: generation {done.generation_id} was not quarantined."])
        return
    lines = [f"{done.pipeline}: generation {done.generation_id} is quarantined no more."]
    if done.undone:
        lines.append(
            "Its rows were given up by a rollback: readers go on with what is served, and the next run makes new ones."
        )
    else:
        lines.append(f"{done.shown:,} rows show their predictions again.")
    _say(lines)


def _say(lines: Sequence[str]) -> None:
    narrator().print("\n".join(lines), soft_wrap=True, markup=False)
