"""The chapter that leads from a table and a model to a schedule, followed to the letter on a real table.

Every example of the chapter is done in its order, in an empty folder: files are written, commands run as processes,
SQL is sent. Two words of it are the reader's own and are replaced: the address of the database and the folder that cron
is told. The table is loaded first; having one is where the chapter begins.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import psycopg2
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pglast import parse_sql
from pglast.stream import RawStream
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from tests import readme
from tests.conftest import execute, psql_url

VARIABLE = "PRESCORE_TELCO_DATA"
FILE = Path(os.environ.get(VARIABLE, ""), "customers.parquet")

pytestmark = [
    pytest.mark.xdist_group("ten minutes"),  # the chapter is followed once
    pytest.mark.skipif(
        not (os.environ.get(VARIABLE) and FILE.is_file()),
        reason=f"{VARIABLE} names no folder with customers.parquet, the table that the chapter is followed with",
    ),
]

CUSTOMERS, BLANK = 7_043, 11
#: What stands for the reader's own in the chapter.
READERS_URL, READERS_FOLDER = "postgresql://me:secret@localhost:5432/company", "/home/me/telco"


@dataclass
class Reader:
    """Somebody who follows the chapter in a folder, with what was seen on the way."""

    url: str
    folder: Path
    environment: dict[str, str]
    #: What the commands printed.
    printed: str = ""
    #: The answers to the SQL of the chapter, in order.
    answers: list[list[dict[str, Any]]] = field(default_factory=list)
    #: What was done and how long it took.
    took: list[tuple[str, float]] = field(default_factory=list)

    def follow(self, block: readme.Block) -> None:
        """Do what one example says."""
        text = block.text.replace(READERS_URL, self.url).replace(READERS_FOLDER, str(self.folder))
        begun = time.perf_counter()
        if block.file is not None:
            path = self.folder / block.file
            assert block.language in {"python", "sql", "toml"}
            assert path.parent.is_dir(), f"{block.file} belongs into a folder that is not there yet"
            path.write_text(text, encoding="utf-8")
        elif block.language == "console":
            for command, told in zip(text.splitlines(), block.text.splitlines(), strict=True):
                self.run(command)
                self.took.append((told, time.perf_counter() - begun))
                begun = time.perf_counter()
            return
        elif block.language == "cron":
            self.let_cron_run(text)
        elif block.language == "sql":
            self.answers += [self.ask(RawStream()(statement)) for statement in parse_sql(text)]
        else:
            raise AssertionError(f"nobody knows what to do with {block.language}")
        self.took.append((block.file or block.text.strip().splitlines()[-1], time.perf_counter() - begun))

    def run(self, command: str) -> None:
        """Run a line of the shell, as bash would keep its variables for the next one."""
        kept = self.folder.parent / "environment"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{command}\nenv -0 > {kept}"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed += f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, self.printed
        self.environment = dict(entry.split("=", 1) for entry in kept.read_text().split("\0") if entry)

    def let_cron_run(self, crontab: str) -> None:
        """Run every entry once, as cron does: by sh, with the variables of the crontab and no others but PATH."""
        variables = dict(re.findall(r"^([A-Z_]+)=(.*)$", crontab, re.MULTILINE))
        entries = re.findall(r"^(?:[\d*/,-]+ ){5} *(.*)$", crontab, re.MULTILINE)
        assert entries
        for command in entries:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.folder.parent,
                env={"PATH": self.environment["PATH"], "HOME": self.environment["HOME"], **variables},
                capture_output=True,
                text=True,
                check=False,
            )
            self.printed += f"cron: {command}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, self.printed

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """Send one SELECT, as any client would."""
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture(scope="module")
def reader(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader who has followed the whole chapter, with a table and a database that prescore has never seen."""
    name = f"company_{uuid.uuid4().hex[:12]}"
    execute(server_url, f"CREATE DATABASE {name}")
    url = psql_url(server_url, name)
    load_table(url)
    folder = tmp_path_factory.mktemp("ten_minutes") / "telco"
    folder.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PRESCORE_", "PREFECT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # One thread for each process: on busy cores the threads of small models wait for each other.
    quiet = {"PATH": path, "HOME": str(folder.parent), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    someone = Reader(url=url, folder=folder, environment={**inherited, **quiet})
    for block in readme.chapter():
        someone.follow(block)
    yield someone
    execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def load_table(url: str) -> None:
    """Load the customers as their owner has them: crm.customers, the column names and the blanks as published."""
    customers = pq.read_table(FILE).drop_columns(["TotalCharges"])
    types = {pa.string(): "text", pa.int16(): "smallint"}
    columns = ", ".join(f'"{c.name}" {types.get(c.type, "numeric(8, 2)")} NOT NULL' for c in customers.schema)
    rows = io.BytesIO()
    pacsv.write_csv(customers, rows, pacsv.WriteOptions(include_header=False))
    rows.seek(0)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE SCHEMA crm; CREATE TABLE crm.customers ({columns}, PRIMARY KEY ("customerID"))')
        cursor.copy_expert("COPY crm.customers FROM STDIN (FORMAT csv)", rows)
        connection.commit()


@pytest.fixture(scope="module")
def served(reader: Reader) -> pd.DataFrame:
    """What an SQL client reads of every customer, in the order of the keys."""
    return pd.DataFrame(reader.ask('SELECT * FROM predictions.telco ORDER BY "customerID" COLLATE "C"'))


@pytest.fixture(scope="module")
def own() -> pd.DataFrame:
    """The customers with the published amounts as numbers, in the same order."""
    return pq.read_table(FILE).to_pandas().sort_values("customerID", ignore_index=True)


def test_every_customer_has_a_fresh_prediction_that_plain_sql_reads(reader: Reader, served: pd.DataFrame) -> None:
    assert len(served) == CUSTOMERS
    assert set(served["state"]) == {"fresh"}
    assert served["churn_probability"].between(0, 1).all()
    assert set(served["will_churn"]) == {"Yes", "No"}
    first, riskiest = reader.answers
    assert [row["state"] for row in first] == ["fresh"] * 3
    chances = [row["churn_probability"] for row in riskiest]
    assert chances == sorted(served["churn_probability"], reverse=True)[:10]


def test_what_is_served_is_what_the_joblib_file_says_in_pandas(
    reader: Reader, served: pd.DataFrame, own: pd.DataFrame
) -> None:
    model = joblib.load(reader.folder / "telco.joblib")
    frame = own.assign(
        TotalCharges=own["TotalCharges"].astype(float), MonthlyCharges=own["MonthlyCharges"].astype(float)
    )
    features = frame.drop(columns=["customerID", "TotalCharges_raw", "Churn"])

    assert served["customerID"].tolist() == own["customerID"].tolist()
    assert abs(served["churn_probability"] - model.predict_proba(features)[:, 1]).max() < 1e-9
    assert served["will_churn"].tolist() == model.predict(features).tolist()


def test_blank_amounts_are_scored_and_nobody_is_rejected(
    reader: Reader, served: pd.DataFrame, own: pd.DataFrame
) -> None:
    blank = own["TotalCharges"].isna()
    assert blank.sum() == BLANK
    assert served.loc[blank, "churn_probability"].notna().all()
    assert reader.ask("SELECT count(*) AS n FROM prescore.rejections") == [{"n": 0}]


def test_the_served_probabilities_tell_who_left_among_customers_the_model_never_saw(
    served: pd.DataFrame, own: pd.DataFrame, record_property: Any
) -> None:
    _, held_out = train_test_split(own.index, test_size=0.25, random_state=0)
    auc = roc_auc_score(own.loc[held_out, "Churn"] == "Yes", served.loc[held_out, "churn_probability"])
    record_property("roc_auc", round(auc, 4))
    assert auc > 0.8


def test_the_commands_say_what_the_chapter_says_they_do(reader: Reader) -> None:
    assert "telco: ready" in reader.printed
    assert len(re.findall(r"^  warning: ", reader.printed, re.MULTILINE)) == 2
    assert "champion yet" in reader.printed
    assert "[[source]]" in reader.printed
    assert "rows.parquet: 1,000 rows, 19 features" in reader.printed
    assert "It is the champion" in reader.printed
    assert "Nothing was written." in reader.printed.split("--dry-run --limit 3")[1]
    runs = reader.ask("SELECT trigger, mode, status FROM prescore.runs ORDER BY run_id")
    assert [tuple(run.values()) for run in runs] == [
        ("manual", "full", "published"),
        ("scheduled", "full", "published"),
    ]
    trusted = reader.ask("SELECT version, trusted_pickle FROM prescore.models")
    assert trusted == [{"version": 1, "trusted_pickle": True}]


def test_the_pipeline_is_well_and_on_its_schedule(reader: Reader, record_property: Any) -> None:
    health = reader.ask("SELECT state, overdue, rows, last_run_trigger FROM prescore.pipeline_health")
    assert health == [{"state": "fresh", "overdue": False, "rows": CUSTOMERS, "last_run_trigger": "scheduled"}]
    for step, seconds in reader.took:
        print(f"{seconds:6.1f} s  {step}")
    print(f"{sum(seconds for _, seconds in reader.took):6.1f} s  in all")
    record_property("seconds", round(sum(seconds for _, seconds in reader.took), 1))
