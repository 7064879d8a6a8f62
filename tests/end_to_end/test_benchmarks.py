"""The benchmark, as anyone runs it, with very few rows: it measures everybody, and all predict the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_benchmark_measures_everybody_once(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--rows", "2000", "--repeat", "1", "--seconds", "3", "--json", str(figures)]
    command = [sys.executable, "-m", "tests.benchmarks", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    for model in found["models"].values():
        assert {"prescore", "usual", "expert", "limit"} <= model["full"].keys()
        assert all(len(rounds) == 1 and rounds[0]["seconds"] > 0 for rounds in model["full"].values())
        assert [rounds[0]["mode"] for rounds in model["incremental"].values()] == ["incremental"] * 4
        assert model["incremental"]["0.0"][0]["rows"] == 0
        assert 100 < model["incremental"]["0.1"][0]["rows"] < 300
        assert model["differences"].keys() == {"usual", "expert", "incremental"}
        assert model["rollback"][0]["rollback"] > 0
    assert found["lookups"]["prepared"].keys() >= {"bare", "view"}
    assert "boosted: all rows" in done.stdout
