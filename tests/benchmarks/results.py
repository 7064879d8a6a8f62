"""Tables of what was measured: medians, how far they spread, and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.limit import STAGES, counted, longest_alone

Found = Mapping[str, Any]

#: What each one is called in the tables.
TITLES = {
    "prescore": "prescore, scikit-learn",
    "compiled": "prescore, compiled",
    "usual": "usual script",
    "expert": "expert's script",
    "limit": "limit, scikit-learn",
    "limit compiled": "limit, compiled",
}
#: With whose limit each form of prescore is compared.
_LIMITS = {"prescore": "limit", "compiled": "limit compiled"}


def median(found: Sequence[Found], name: str) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(float(one[name]) for one in found)


def spread(found: Sequence[Found], name: str, digits: int = 2) -> str:
    """Return the median of a figure, and its smallest and largest."""
    values = [float(one[name]) for one in found]
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def faster(mine: Sequence[Found], other: Sequence[Found]) -> str:
    """Return how many times the rows per second of another: the ratio of the medians, and those of the single rounds."""
    per_row = [median(found, "seconds") / median(found, "rows") for found in (mine, other)]
    rounds = [
        (theirs["seconds"] / theirs["rows"]) / (own["seconds"] / own["rows"])
        for own, theirs in zip(mine, other, strict=True)
    ]
    return _ratio(per_row[1] / per_row[0], rounds)


def times(mine: Sequence[Found], other: Sequence[Found], figure: str) -> str:
    """Return how many times a figure of another, per row: the ratio of the medians, and those of the single rounds."""
    per_row = [median(found, figure) / median(found, "rows") for found in (mine, other)]
    rounds = [
        (own[figure] / own["rows"]) / (theirs[figure] / theirs["rows"]) for own, theirs in zip(mine, other, strict=True)
    ]
    return _ratio(per_row[0] / per_row[1], rounds)


def _ratio(middle: float, rounds: Sequence[float]) -> str:
    return f"{middle:.2f}" if len(rounds) == 1 else f"{middle:.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


def show(console: Console, results: Mapping[str, Any]) -> None:
    """Print all tables."""
    console.print(heading(results), highlight=False, markup=False)
    for name, model in results["models"].items():
        console.print(full_table(name, model))
        console.print(stages_table(name, model))
        if model["incremental"]:
            console.print(incremental_table(name, model))
        for line in remarks(model):
            console.print(line, highlight=False, markup=False)
    if results.get("lookups"):
        console.print(lookups_table(results["lookups"]))


def heading(results: Mapping[str, Any]) -> str:
    """Return what the figures depend on."""
    machine = results["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    openmp = ", ".join(f"{name}={value}" for name, value in machine["openmp"].items())
    return (
        f"{results['rows']:,} rows, {results['repeat']} rounds, medians (smallest–largest). {machine['cores']} cores "
        f"({machine['processor']}), nice {machine['nice']}, load {results['load_before']:.1f} before and "
        f"{results['load_after']:.1f} after. PostgreSQL {results['postgres']}, Python {machine['python']}, {libraries}. "
        f"{openmp} for everybody."
    )


def full_table(name: str, model: Found) -> Table:
    """Return the table of full runs, scripts and limits."""
    full = model["full"]
    table = plain_table(
        f"{name}: all rows",
        "",
        "rows",
        "seconds",
        "rows/s",
        "CPU s Python",
        "CPU s PostgreSQL",
        "peak MB",
        "process s",
        "threads",
        "x usual",
        "x expert's",
        "x time of limit",
        "x CPU of limit",
    )
    for who in (who for who in TITLES if who in full):
        found = full[who]
        rate = median(found, "rows") / median(found, "seconds")
        cells = [TITLES[who], f"{found[0]['rows']:,}", spread(found, "seconds"), f"{rate:,.0f}"]
        if who.startswith("limit"):
            counting = [_both(one["stages"]) for one in found]
            cells += [f"{median(counting, side):,.2f}" for side in ("python", "backends")] + [""] * 3
        else:
            cells += [f"{median(found, side):,.2f}" for side in ("python", "backends")]
            cells += [f"{median(found, 'memory') / 1e6:,.0f}", f"{median(found, 'process'):,.2f}", found[0]["threads"]]
        cells += [faster(found, full[other]) if other in full else "" for other in ("usual", "expert")]
        limit = _LIMITS.get(who, "limit")
        cells += [times(found, full[limit], name) if limit in full else "" for name in ("seconds", "cpu")]
        table.add_row(*cells)
    return table


def _both(stages: Mapping[str, Found]) -> dict[str, float]:
    """Return what counts of all stages, apart for Python and PostgreSQL."""
    backends = sum(stages[stage]["backends"] for stage in ("read", "write", "key"))
    return {"python": sum(counted(stage, found) for stage, found in stages.items()) - backends, "backends": backends}


def stages_table(name: str, model: Found) -> Table:
    """Return the table of the stages, each alone."""
    limits = [who for who in ("limit", "limit compiled") if who in model["full"]]
    table = plain_table(f"{name}: each stage alone", "stage", *_columns_of_stages(limits))
    for stage in STAGES:
        cells = [stage]
        for who in limits:
            found = [one["stages"][stage] for one in model["full"][who]]
            cells += [f"{median(found, figure):,.2f}" for figure in ("seconds", "python", "backends")]
            counts = [{"counts": counted(stage, one)} for one in found]
            cells.append(spread(counts, "counts") + (" *" if longest_alone(stage, found[0]) else ""))
        table.add_row(*cells)
    table.caption = "* one thread has to do it alone. The limit: what counts, divided by the cores, and none of these."
    return table


def _columns_of_stages(limits: Sequence[str]) -> list[str]:
    columns = ["seconds", "CPU s Python", "CPU s PostgreSQL", "counts"]
    return [f"{column}{', compiled' if who != 'limit' else ''}" for who in limits for column in columns]


def incremental_table(name: str, model: Found) -> Table:
    """Return the table of incremental runs of scikit-learn's form, compared with full runs."""
    forms = [who for who in ("prescore", "compiled") if who in model["full"]]
    table = plain_table(
        f"{name}: incremental",
        "changed",
        "rows scored",
        "seconds",
        *(f"of {TITLES[who]}" for who in forms),
        "CPU s Python",
        "CPU s PostgreSQL",
        "publish s",
        "move s",
        "peak MB",
        "process s",
    )
    everything = model["full"]["prescore"]
    for share, found in [("all", everything), *model["incremental"].items()]:
        times = [median(model["full"][who], "seconds") / median(found, "seconds") for who in forms]
        table.add_row(
            share if share == "all" else f"{float(share):.1%}",
            f"{median(found, 'rows'):,.0f}",
            spread(found, "seconds"),
            *("" if share == "all" else f"1/{one:.1f}" for one in times),
            f"{median(found, 'python'):,.2f}",
            f"{median(found, 'backends'):,.2f}",
            spread(found, "publish", 3),
            spread(found, "move", 3),
            f"{median(found, 'memory') / 1e6:,.0f}",
            f"{median(found, 'process'):,.2f}",
        )
    return table


def remarks(model: Found) -> list[str]:
    """Return what else was found."""
    found = []
    if model["rollback"]:
        back, again = spread(model["rollback"], "rollback", 3), spread(model["rollback"], "resume", 3)
        found.append(f"Rollback {back} s, resume {again} s.")
    compared = ", ".join(f"{who} {value:.1g}" for who, value in model["differences"].items())
    found.append(f"Predictions differ at most by, from those of prescore's full run: {compared or 'not compared'}.")
    if model["not_compiled"] is not None:
        found.append(f"There is no compiled form: {model['not_compiled']}.")
    found.append(f"The expert's script is the faster one of two: {model['expert'].replace('expert_', '')}.")
    return found


def lookups_table(lookups: Mapping[str, Mapping[str, Found]]) -> Table:
    """Return the table of lookups, by protocol and statement."""
    table = plain_table("lookups of one row, µs", "", "protocol", "p50", "p99", "x bare", "x bare at p99", "lookups")
    for protocol, statements in lookups.items():
        bare = statements.get("bare")
        if bare is None:  # so busy a machine that there was none
            continue
        for name, found in statements.items():
            ratios = [f"{found[which] / bare[which]:.2f}" for which in ("p50", "p99")]
            table.add_row(
                name, protocol, f"{found['p50']:.0f}", f"{found['p99']:.0f}", *ratios, f"{found['lookups']:,}"
            )
    return table


def plain_table(title: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first are numbers."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    return table
