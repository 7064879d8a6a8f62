"""The receipt of an erasure, and what its end did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from flows.show.parts import print_json
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from tasks.erasure import Erasure, ReleasedEntity


def show_erasure(done: Erasure, *, as_json: bool) -> None:
    """Print what was removed where, and what may be left."""
    if as_json:
        print_json(done)
        return
    console = narrator()
    state = "not complete yet" if done.finished_at is None else f"complete since {shown(done.finished_at)}"
    console.print(
        f"{done.pipeline}: erasure {done.erasure_id} is {state}. The entity is kept out of every run until it is released.",
        soft_wrap=True,
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 2))
    for name, justify in (("place", "left"), ("removed", "right"), ("of", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for each in done.removed:
        table.add_row(each.place, f"{each.count:,}", each.what)
    if done.removed:
        console.print(table)
    else:
        console.print("Nothing of it was kept.", markup=False)
    for sentence in (*done.failed, *done.left):
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Digest of its key: {done.digest}", soft_wrap=True, markup=False)


def show_readmission(done: ReleasedEntity, *, as_json: bool) -> None:
    """Print whether an entity is let in again."""
    if as_json:
        print_json(done)
        return
    if done.released:
        told = f"erasure {done.erasure_id} is released: the next run scores the entity if it is in the population."
    else:
        told = "this entity was not forgotten. Nothing was changed."
    narrator().print(f"{done.pipeline}: {told}", soft_wrap=True, markup=False)
