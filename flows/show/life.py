"""What goes with a pipeline, and what waiting for one came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from flows.show.parts import print_json
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from flows.outputs import Reshaping
    from tasks.removal import Removal
    from tasks.renaming import RenamedPipeline
    from tasks.waiting import Waited

_MEGABYTE = 1_000_000


def show_removal(plan: Removal, *, as_json: bool) -> None:
    """Print what would be removed, and what stays."""
    if as_json:
        print_json(plan)
        return
    if not plan.known:
        _say([_nothing(plan)])
        return
    if plan.dependents:
        _say([f"{plan.pipeline} cannot be dropped: others built on it."])
        _say(f"  {each}" for each in plan.dependents)
        _say(["Drop or change these first; prescore never removes what is not its own. Nothing was changed."])
        return
    if plan.former_of:
        _say(
            [
                f"{plan.pipeline} is a former name of {plan.former_of}, which stays. Dropping it sets the name free and removes:"
            ]
        )
        _say(_goes(plan))
        return
    _say([f"Dropping {plan.pipeline} removes, in one transaction:"])
    _say(_goes(plan))
    _say(["It leaves:"])
    _say(_stays(plan))


def show_removed(done: Removal, deployments: Sequence[str] | None, *, as_json: bool) -> None:
    """Print what was removed, what stays, and what is left to be done."""
    if as_json:
        print_json({"removed": done, "deployments": None if deployments is None else list(deployments)})
        return
    if not done.known:
        _say([_nothing(done)])
        return
    if done.former_of:
        _say([f"The name {done.pipeline} is free; {done.former_of}, which had it, stays.", *_goes(done)])
        return
    _say(
        [f"Dropped {done.pipeline}:", *_goes(done), "It left:", *_stays(done), *left_to_do(done.pipeline, deployments)]
    )


def left_to_do(pipeline: str, deployments: Sequence[str] | None) -> list[str]:
    """Say which deployments of Prefect are left, and how to be rid of them."""
    if deployments is None:
        return [
            "If it was deployed on a Prefect server, its schedules go on there: "
            f"`prefect deployment delete score/{pipeline}`, and train/{pipeline}. `prescore serve` drops those of folders that are "
            "gone when it starts."
        ]
    return [f"Prefect still has {name} with its schedules: `prefect deployment delete {name}`" for name in deployments]


def show_reshaping(told: Reshaping, *, as_json: bool) -> None:
    """Print what differs between what readers have and what is declared, and what follows or was done."""
    if as_json:
        print_json(told)
        return
    name = told.pipeline
    if told.is_nothing:
        _say([f"Readers of {name} have the outputs that are declared."])
        return
    if told.created:
        done = "Made" if told.applied else "Nobody can read it yet: --apply makes"
        _say([f"{done} the views and the lookup of {name}; nothing was published yet."])
        return
    lines = [f"  {sentence}" for sentence in told.key]
    lines += [f"  + {column.name} {column.postgres_type}" for column in told.added]
    lines += [f"  - {column.name} {column.postgres_type}" for column in told.removed]
    lines += [f"  ~ {was.name} {was.postgres_type} becomes {now.postgres_type}" for was, now in told.retyped]
    if told.applied:
        _say([f"Readers of {name} have other outputs now:", *lines])
        _say(f"  {right} is gone with its column" for right in told.lost_rights)
        _say([f"New ones are NULL until they are scored: prescore score {name}"])
        return
    _say([f"Readers of {name} have other outputs than are declared:", *lines])
    if told.key:
        _say(["Another key gives other rows: drop or rename the pipeline, or restore the key."])
    elif told.dependents:
        _say(
            [
                "Its views would have to be made anew, and others built on them. Drop these first, and make them again after:"
            ]
        )
        _say(f"  {each}" for each in told.dependents)
    elif told.makes_anew:
        _say(
            [
                "--apply makes the views and lookups anew in one transaction, with the rights that roles have on them now."
            ]
        )
        _say(f"  function {each} names them in its text: look whether it still works" for each in told.mentions)
    else:
        _say(["They are added in place by the next run, or by --apply."])


def show_renamed(done: RenamedPipeline, deployments: Sequence[str] | None, *, as_json: bool) -> None:
    """Print what was renamed, and what is left to be done."""
    if as_json:
        print_json({"renamed": done, "deployments": None if deployments is None else list(deployments)})
        return
    old, new = done.former, done.pipeline
    lines = [
        f"{old} is called {new} {'already' if done.already else 'now'}, with all its rows, views, runs and rights."
    ]
    if done.kept_old_name:
        lines.append(f"Views and a lookup of the old name still answer; `prescore drop {old}` removes them.")
    if done.folder is not None:
        lines.append(f"Its folder is {done.folder}. Other checkouts have to follow: runs of {old} are refused.")
    else:
        lines.append(f"Rename its folder to {new} as well, in every checkout: until then runs of {old} are refused.")
    lines += [f"function {name} names its views by the old name: change its text" for name in done.mentions]
    lines += [
        f"{each.generations} archived generations stay in {each.url}/{old}; new ones go to {new}"
        for each in done.archives
    ]
    _say(
        [*lines, f"Put it on its schedules under the new name: `prescore deploy {new}`.", *left_to_do(old, deployments)]
    )


def show_waited(waited: Waited, *, as_json: bool) -> None:
    """Print what is served now, and whether it is what was waited for."""
    if as_json:
        print_json(waited)
        return
    served = "nothing was published yet"
    if waited.generation_id is not None and waited.data_as_of is not None:
        served = f"generation {waited.generation_id} is served, {waited.state}, data as of {shown(waited.data_as_of)}"
    _say([f"{waited.pipeline}: {served}." if waited.there else f"{waited.pipeline}: gave up waiting; {served}."])


def _goes(plan: Removal) -> list[str]:
    lines = []
    for each in plan.objects:
        size = (
            "" if each.kind != "table" else f", about {each.rows or 0:,} rows, {(each.bytes or 0) / _MEGABYTE:,.1f} MB"
        )
        lines.append(f"  {each.kind} {each.shown}{size}")
    if plan.generation_id is not None:
        lines.append(f"  what is served: generation {plan.generation_id}, {plan.served_rows:,} rows")
    lines += [f"  {count:,} rows of prescore.{name}" for name, count in plan.records]
    return lines


def _stays(plan: Removal) -> list[str]:
    shared = f", used by {', '.join(plan.sharing)} too" if plan.sharing else ""
    lines = [f"  {plan.versions} versions of the model {plan.model}{shared}", "  the pipeline's folder"]
    lines += [
        f"  {place.generations} archived generations in {place.url} ({(place.bytes or 0) / _MEGABYTE:,.1f} MB)"
        for place in plan.archives
    ]
    lines += [f"  function {name}, whose text names its views: calling it will fail" for name in plan.mentions]
    return lines


def _nothing(plan: Removal) -> str:
    there = f" There are: {', '.join(plan.pipelines)}." if plan.pipelines else ""
    return f"There is nothing of {plan.pipeline} in this database, and nothing was removed.{there}"


def _say(lines: Iterable[str]) -> None:
    narrator().print("\n".join(lines), soft_wrap=True, markup=False)
