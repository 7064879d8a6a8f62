"""A few entities side by side, with their features and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flows.show.parts import plain, print_findings, print_json, told
from tasks.telling import narrator, shown

if TYPE_CHECKING:
    from flows.preview import FeatureRows, Preview

# Entities side by side, where they fit, and how much of a text is shown of each.
ENTITIES_ABREAST, LONGEST_TEXT = 5, 40


def show_preview(found: Preview, *, as_json: bool) -> None:
    """Print a few entities with their features and predictions, side by side."""
    if as_json:
        print_json({**asdict(found), "findings": told(found.findings), "disposition": found.disposition.name.lower()})
        return
    console = narrator()
    what = f"{found.model} version {found.model_version}, as of {shown(found.as_of)}. Nothing was written."
    console.print(Text(f"{found.pipeline}: {what}", style="bold"))
    entities = [
        (entity.key, {"rejected": entity.rejected} if entity.rejected else entity.predictions or {}, entity.features)
        for entity in found.entities
    ]
    _side_by_side(console, entities)
    if not found.entities:
        console.print("The population is empty.")
    if found.disposition.value > 1:
        console.print(Text(f"A run now would not publish ({found.disposition.name.lower()}):", style="bold red"))
    print_findings(console, found.findings)


def show_features(found: FeatureRows, *, as_json: bool) -> None:
    """Print feature rows, or which file holds them."""
    key = [column.name for column in found.key]
    missing = f"{found.missing:,} entities have no features" if found.missing else ""
    if as_json:
        rows = [] if found.file else [_split(row, key) for row in found.rows.to_pylist()]
        facts = {"pipeline": found.pipeline, "as_of": found.as_of, "rows": found.rows.num_rows}
        print_json({**facts, "missing": found.missing, "file": found.file, "entities": rows})
        return
    console = narrator()
    if found.file is not None:
        columns = found.rows.num_columns - len(key) - 1
        told = f"{found.file}: {found.rows.num_rows:,} rows, {columns} features, as of {shown(found.as_of)}."
        console.print(Text(f"{told} {missing}{'.' if missing else ''}".rstrip()), soft_wrap=True)
        return
    console.print(Text(f"{found.pipeline}: as of {shown(found.as_of)}.", style="bold"))
    split = [_split(row, key) for row in found.rows.to_pylist()]
    _side_by_side(console, [(row["key"], {}, row["features"]) for row in split])
    if missing or not split:
        console.print(missing or "The population is empty.")


def _split(row: Mapping[str, Any], key: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a feature row as its key and its features."""
    return {
        "key": {name: row[name] for name in key},
        "features": {name: value for name, value in row.items() if name not in {*key, "as_of"}},
    }


def _side_by_side(
    console: Console, entities: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]]
) -> None:
    """Print entities as columns, as many beside each other as fit, with a line for each prediction and each feature."""
    left = list(entities)
    while left:
        abreast = min(len(left), ENTITIES_ABREAST)
        unbounded = console.options.update(max_width=100 * console.width)
        while abreast > 1 and Measurement.get(console, unbounded, _abreast(left[:abreast])).maximum > console.width:
            abreast -= 1
        console.print(_abreast(left[:abreast]))
        left = left[abreast:]


def _abreast(entities: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]]) -> Table:
    keys, predictions, features = ([entity[part] or {} for entity in entities] for part in range(3))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    named = [", ".join(keys[0]), *(name for part in (*predictions, *features) for name in part)]
    table.add_column(Text(named[0]), style="dim", overflow="fold", min_width=min(LONGEST_TEXT, max(map(len, named))))
    for key in keys:
        table.add_column(Text(", ".join(plain(name, value) for name, value in key.items())), overflow="fold")
    for part, style in ((predictions, "bold"), (features, "")):
        names = list(dict.fromkeys(name for values in part for name in values))
        for at, name in enumerate(names, start=1):
            cells = [Text(_exact(values[name]) if name in values else "", style=style) for values in part]
            table.add_row(Text(name), *cells, end_section=at == len(names))
    return table


def _exact(value: Any) -> str:
    """Return a value without separators, since people compare it with what their database holds; a long text is cut."""
    if isinstance(value, float):
        return f"{value:.12g}"
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else shown(value)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
