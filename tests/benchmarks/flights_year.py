"""A year of real flights: one scheduled full run each day, 1 February to 31 December 2013, and what the contract said.

    uv run python -m tests.benchmarks.flights_year                    # both arms, the whole year
    uv run python -m tests.benchmarks.flights_year --until 2013-02-28
    uv run python -m tests.benchmarks.flights_year --report           # what has been run so far

Each day at 03:00 New York what was known by then is in the database, the clock stands there, and the contract that is
shipped with flight_delay judges the run. Two arms share the data: one keeps the model that was trained on January, one
trains and promotes another on the first of every month. Printed are the episodes of every warning, failure and hold (the
runs in a row that found the same), the runs of each month, and the AUC of its predictions beside what their scores alone
promised.

The flights are read from PRESCORE_FLIGHTS_DATA, or from ../shared/data/nycflights13. The database is one of its own
(`flights_year`) on the embedded server of PRESCORE_DATA_DIR, and stays: a run that was stopped goes on where it was;
--fresh begins again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

import deployments
from flows.score import score
from flows.train import train
from tasks import embedded, migrations
from tasks.performance import ScoreHistogram, expected_auc
from tasks.runs import Trigger
from tasks.settings import read_settings
from tests import flights
from tests.conftest import execute, psql_url

DATABASE = "flights_year"
SHIPPED = Path(deployments.__file__).parent / "pipelines" / "flight_delay"
TRAINED = date(2013, 2, 1)
ARMS = {"flight_delay": "trained once", "flight_delay_monthly": "trained on the first of each month"}


def main() -> None:
    """Replay what is left of the year, and report on all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--until", type=date.fromisoformat, default=flights.LAST_DAY, help="last day, 2013-12-31")
    parser.add_argument("--fresh", action="store_true", help="begin again")
    parser.add_argument("--report", action="store_true", help="run nothing, report on what was run")
    parser.add_argument("--database", default=DATABASE, help="its name on the embedded server")
    parser.add_argument("--arm", choices=ARMS, action="append", help="one of the two (both when left out)")
    asked = parser.parse_args()
    arms = asked.arm or list(ARMS)
    os.environ.setdefault("PRESCORE_FLIGHTS_DATA", "../shared/data/nycflights13")
    skipped = flights.why_skipped()
    if skipped is not None:
        print(f"Nothing was replayed. {skipped}")
        return
    data_dir = read_settings(os.environ).data_dir
    server = psql_url(embedded.ensure_running(data_dir), "postgres")
    url = psql_url(server, asked.database)
    with tempfile.TemporaryDirectory(prefix="prescore-year-") as folder, threadpool_limits(1):
        pipelines = copy_pipelines(Path(folder))
        if not asked.report:
            prepare(server, asked.database, url, fresh=asked.fresh)
            replay_days(url, pipelines, asked.until, arms)
    report(url, arms)


def copy_pipelines(folder: Path) -> Path:
    """Write the shipped pipeline once for each arm, with a model of its own."""
    for arm in ARMS:
        shutil.copytree(SHIPPED, folder / arm, ignore=shutil.ignore_patterns("__pycache__"))
        declaration = folder / arm / "pipeline.toml"
        text = declaration.read_text(encoding="utf-8")
        declaration.write_text(text.replace('name = "flight_delay"', f'name = "{arm}"'), encoding="utf-8")
    return folder


def prepare(server: str, name: str, url: str, *, fresh: bool) -> None:
    """Make the database with January in it, unless it is there."""
    with flights.connected(server) as connection:
        there = bool(flights.run(connection, "SELECT FROM pg_database WHERE datname = %(name)s", name=name))
    if there and fresh:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")
    if not there or fresh:
        execute(server, f"CREATE DATABASE {name}")
        # A benchmark may lose its last runs when the machine fails; it waits for no disk.
        execute(server, f"ALTER DATABASE {name} SET synchronous_commit = off")
        migrations.apply(url)
        flights.stage_world(url, Path(os.environ["PRESCORE_FLIGHTS_DATA"]))
        flights.replay(url, since=flights.FIRST_DAY, until=TRAINED)


def replay_days(url: str, pipelines: Path, until: date, arms: Sequence[str]) -> None:
    """Go on from the last day that was run."""
    settings = read_settings({"PRESCORE_DATABASE_URL": url, "PRESCORE_PIPELINES": str(pipelines)})
    with flights.connected(url) as connection:
        newest = flights.run(connection, "SELECT max(flight_date) FROM ny.flights")[0][0]
        runs = (
            "SELECT pipeline, (as_of AT TIME ZONE 'America/New_York')::date FROM prescore.runs WHERE status <> 'failed'"
        )
        done = set(flights.run(connection, runs))
        models = {name for (name,) in flights.run(connection, "SELECT DISTINCT model FROM prescore.models")}
    for day in flights.days(TRAINED, until):
        if day > newest:
            flights.replay(url, since=newest, until=day)
            newest = day
        flights.set_clock(url, flights.scoring_instant(day))
        for arm in arms:
            if (arm, day) in done:
                continue
            if arm not in models or (arm != "flight_delay" and day.day == 1 and day != TRAINED):
                train(settings, arm, promote=True)
                models.add(arm)
            started = time.perf_counter()
            summary = score(settings, arm, full=True, trigger=Trigger.SCHEDULED)
            told = [f for f in summary.findings if f.effective in {"warn", "fail"}]
            words = "; ".join(f"{f.label} {f.effective.value}" for f in told)
            seconds = time.perf_counter() - started
            sys.stderr.write(f"{day} {arm}: {summary.status.value} in {seconds:.1f} s {words}\n")


# The report ------------------------------------------------------------------------------------------------------


@dataclass
class Episode:
    """Runs in a row in which one check found the same about one subject."""

    check: str
    subject: str
    verdict: str
    days: list[date] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    reason: str = ""

    def __str__(self) -> str:
        when = str(self.days[0]) if len(self.days) == 1 else f"{self.days[0]} to {self.days[-1]}"
        values = f" {min(self.observed):.3g} to {max(self.observed):.3g}" if len(self.observed) > 1 else ""
        label = f"{self.check} {self.subject}".strip()
        return f"{when:24} {len(self.days):3} {self.verdict:8} {label}:{values} {self.reason}"


def report(url: str, arms: Sequence[str]) -> None:
    """Print what every arm was told, and how good its predictions were."""
    for arm in arms:
        words = ARMS[arm]
        print(f"\n{arm}: {words}\n{'=' * (len(arm) + len(words) + 2)}\n")
        found = read_findings(url, arm)
        for episode in episodes(found):
            print(episode)
        print_checks(found)
        print_months(url, arm, found)


def read_findings(url: str, arm: str) -> pd.DataFrame:
    """Return all findings of an arm, one row for each, by day."""
    names = ("day", "status", "check_id", "subject", "verdict", "effective", "observed", "reason", "followups")
    with flights.connected(url) as connection:
        rows = flights.run(
            connection,
            """
            SELECT (r.as_of AT TIME ZONE 'America/New_York')::date, r.status, c.check_id, c.subject, c.verdict,
                   c.effective, c.observed, c.reason, c.followups
            FROM prescore.checks AS c JOIN prescore.runs AS r USING (run_id)
            WHERE r.pipeline = %(arm)s ORDER BY r.as_of, c.check_id, c.subject
            """,
            arm=arm,
        )
    return pd.DataFrame(rows, columns=names)


def episodes(found: pd.DataFrame) -> list[Episode]:
    """Return the episodes of warnings and failures, and of runs that did not publish, by their first day."""
    open_: dict[tuple[str, str], Episode] = {}
    closed: list[Episode] = []
    held = found[found.status != "published"].drop_duplicates("day")
    told = found[found.effective.isin(["warn", "fail"])]
    rows: Iterable[Any] = [
        *held.assign(check_id="run", subject="", effective=held.status, observed=None, reason="").itertuples(),
        *told.itertuples(),
    ]
    for row in sorted(rows, key=lambda row: row.day):
        key = (row.check_id, row.subject)
        current = open_.get(key)
        if current is None or current.verdict != row.effective or row.day - current.days[-1] > timedelta(days=1):
            current = open_[key] = Episode(row.check_id, row.subject, row.effective, reason=row.reason)
            closed.append(current)
        current.days.append(row.day)
        if row.observed is not None and not np.isnan(row.observed):
            current.observed.append(row.observed)
    return sorted(closed, key=lambda episode: (episode.days[0], episode.check))


def print_checks(found: pd.DataFrame) -> None:
    """Print how many runs each check flagged: days on which any subject of it did."""
    runs = found.day.nunique()
    print(f"\n{'check':26} {'warn':>6} {'fail':>6} {'unknown':>8}   of {runs} runs")
    for check, rows in found.groupby("check_id"):
        days = [rows[rows.effective == level].day.nunique() for level in ("warn", "fail")]
        unknown = rows[rows.verdict == "unknown"].day.nunique()
        if sum(days) + unknown:
            print(f"{check:26} {days[0]:6} {days[1]:6} {unknown:8}")
    flagged = found[found.effective.isin(["warn", "fail"])].day.nunique()
    print(f"{'any':26} {flagged:6}")


def print_months(url: str, arm: str, found: pd.DataFrame) -> None:
    """Print runs and flags of each month, and the AUC of its predictions beside the one their scores promised."""
    print(
        f"\n{'month':8} {'runs':>4} {'held':>4} {'flagged':>7} {'labels':>7} {'late':>6} {'promised':>8} {'AUC':>6} "
        f"{'promised':>8} {'AUC of a day':>12} {'promised':>8}"
    )
    scored = read_predictions(url, arm)
    for month, rows in scored.groupby(scored.day.map(lambda day: day.month)):
        of_month = found[found.day.map(lambda day, month=month: day.month == month)]
        held = of_month[of_month.status != "published"].day.nunique()
        flagged = of_month[of_month.effective.isin(["warn", "fail"])].day.nunique()
        days = [day for _, day in rows.groupby("day") if 0 < day.late.mean() < 1]
        real = np.mean([roc_auc_score(day.late, day.score) for day in days])
        promised = np.mean([promise(day.score) for day in days])
        print(
            f"2013-{month:02} {of_month.day.nunique():5} {held:4} {flagged:7} {len(rows):7,} {rows.late.mean():6.1%} "
            f"{rows.score.mean():8.1%} {roc_auc_score(rows.late, rows.score):6.3f} {promise(rows.score):8.3f} "
            f"{real:12.3f} {promised:8.3f}"
        )


def promise(scores: pd.Series) -> float:
    """Return the AUC that scores promise, from a histogram as a run keeps one."""
    return expected_auc(ScoreHistogram.of_scores(scores.to_numpy())) or float("nan")


def read_predictions(url: str, arm: str) -> pd.DataFrame:
    """Return the kept predictions of an arm with what became of the flights, cancelled ones left out."""
    with flights.connected(url) as connection:
        rows = flights.run(
            connection,
            """
            SELECT o.flight_date, (s.predictions ->> 'late_probability')::float8, o.dep_delay_gt15
            FROM prescore.prediction_samples AS s
            JOIN world.outcome AS o ON o.flight_key = s.key ->> 'flight_key'
            WHERE s.pipeline = %(arm)s AND o.dep_delay_gt15 IS NOT NULL
            """,
            arm=arm,
        )
    return pd.DataFrame(rows, columns=["day", "score", "late"]).astype({"score": float, "late": bool})


if __name__ == "__main__":
    main()
