"""Judge one stream of days with prescore, Evidently and NannyML, each with its defaults, and print the table.

    uv run python -m tests.benchmarks.monitors
    uv run python -m tests.benchmarks.monitors --entities 2000

The other two run in environments of their own, which uv makes from the head of their scripts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks.monitors import stream
from tests.shop_year import FAULTS, Fault

HERE = Path(__file__).parent
JUDGES = {
    "prescore": [sys.executable, "-m", "tests.benchmarks.monitors.judge_prescore"],
    "Evidently": ["uv", "run", "--script", str(HERE / "judge_evidently.py")],
    "NannyML": ["uv", "run", "--script", str(HERE / "judge_nannyml.py")],
}


def main() -> None:
    """Write the stream, let each judge it, and print what they told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=20_000)
    entities = parser.parse_args().entities
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        stream.write(folder, entities)
        known = json.loads((folder / "stream.json").read_text())
        (folder / "stream.json").write_text(json.dumps({**known, "entities": entities}))
        stream.write_large(folder)
        found = {
            name: (_judged(command, folder), _judged([*command], folder, "--large")) for name, command in JUDGES.items()
        }
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(_table(entities, found))


def _judged(command: list[str], folder: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run([*command, str(folder), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"failed": lines[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _table(entities: int, found: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> Table:
    table = Table(f"{entities:,} entities", *found, box=box.SIMPLE_HEAD)
    clean = len(stream.CLEAN)

    def row(name: str, cell: Any, which: int = 0) -> None:
        table.add_row(name, *(judged[which].get("failed") or cell(judged[which]) for judged in found.values()))

    row(f"clean days with an alarm, of {clean}", lambda j: str(sum(bool(d["columns"]) for d in j["told"]["clean"])))
    row("alarms in them", lambda j: str(sum(len(d["columns"]) for d in j["told"]["clean"])))
    row("clean days on which the data set drifts", lambda j: str(sum(d["dataset"] for d in j["told"]["clean"])))
    for fault in FAULTS:
        row(fault.name, lambda j, fault=fault: _first(j["told"], fault))
    row("1,000,000 rows x 30 features, CPU time", lambda j: f"{j['told']['seconds']:.1f} s", 1)
    row("memory at most, reading included", lambda j: f"{j['memory'] / 2**30:.2f} GiB", 1)
    return table


def _first(told: dict[str, Any], fault: Fault) -> str:
    """Return the first run that alarmed for the column with the fault, and on how many clean days it was alarmed for too."""

    def alarmed(day: dict[str, Any]) -> bool:
        return any(fault.feature in label.split() for label in day["columns"])

    usual = sum(alarmed(day) for day in told["clean"])
    beside = f" ({usual} clean days too)" if usual else ""
    for at, day in enumerate(told[fault.name], 1):
        if alarmed(day):
            return f"run {at}{beside}"
    return f"not in {len(told[fault.name])}{beside}"


if __name__ == "__main__":
    main()
