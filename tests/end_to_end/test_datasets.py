"""Features from Parquet files: the rows of a query, the same checks, and a refusal of whatever is not what it seems."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows.check import check
from flows.train import train
from tasks import dataset_rows, datasets, health
from tasks.columns import Column
from tasks.datasets import DatasetChanged, DatasetRefused
from tasks.errors import PipelineInvalid
from tasks.features import KEYS_PER_QUERY
from tasks.pairs import Pairs
from tasks.staging import DuplicateEntities
from tests.factories import World, make_model, make_pipeline, make_world

ROWS = 400
KEY = (Column(name="id", postgres_type="bigint"),)
# Written yesterday, as a lake's files are before a run.
WRITTEN = (datetime.now(UTC) - timedelta(hours=20)).replace(microsecond=0)

TOML = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
{features}
[predictions]
p = {{ method = "predict_proba", class = "1" }}
label = {{ method = "predict" }}
[coverage]
missing = [0.05, 0.5]
"""


def rows(ids: list[int] | range, **changed: Any) -> pa.Table:
    """Rows of a dataset: the same numbers for the same id, but for columns that are given."""
    x = np.array(list(ids), dtype=np.int64)
    table = pa.table(
        {"id": x, "a": np.sin(x * 12.9898), "b": np.cos(x * 78.233), "c": [f"c{i % 3}" for i in x.tolist()]}
    )
    for name, values in changed.items():
        column = pa.array([values] * len(x) if isinstance(values, datetime) else values)
        at = table.schema.get_field_index(name)
        table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
    return table


def write(folder: Path, at: datetime = WRITTEN, **files: pa.Table) -> Path:
    """Write files of a dataset as if at an instant."""
    folder.mkdir(exist_ok=True)
    for name, table in files.items():
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=100)
        os.utime(path, (at.timestamp(), at.timestamp()))
    return folder


def dataset_world(url: str, tmp_path: Path, features: str | None = None, model: bool = True) -> World:
    world = make_world(url, tmp_path / "pipelines", rows=ROWS)
    declared = features or f'dataset = "{tmp_path / "lake"}"'
    pipeline = make_pipeline(world, toml=TOML.format(features=declared), changes=None)
    if model:
        make_model(world, pipeline)
    return world


def served(world: World) -> list[Any]:
    return world.rows("SELECT id, rejected, p, label FROM prescore_rows.items WHERE storage_id = "
                      "(SELECT storage_id FROM prescore.head WHERE pipeline = 'items') ORDER BY id")  # fmt: skip


def finding(summary: Any, check_id: str, subject: str = "") -> Any:
    (found,) = [each for each in summary.findings if (each.check_id, each.subject) == (check_id, subject)]
    return found


# Equal to a query ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["a folder", "memory"])
def test_predictions_are_those_of_the_same_rows_in_sql(database_url: str, tmp_path: Path, place: str) -> None:
    # Of everybody but nine, and of ten who are nobody; in two files, by other types of the same kinds, in no order.
    first = rows(range(200, 0, -1)).select(["id", "a", "b", "c"])
    second = rows([*range(210, ROWS + 1), *range(9001, 9011)])
    second = second.set_column(0, "id", second.column("id").cast(pa.int32()))
    second = second.set_column(3, "c", second.column("c").dictionary_encode())
    lake = write(tmp_path / "lake", one=first, two=second.select(["c", "b", "a", "id"]))
    url = str(lake)
    if place == "memory":
        url = f"memory://{tmp_path.name}/lake"
        filesystem, root = fsspec.core.url_to_fs(url)
        for path in lake.iterdir():
            filesystem.pipe_file(f"{root}/{path.name}", path.read_bytes())
    world = dataset_world(database_url, tmp_path, f'dataset = "{url}"')

    summary = world.score()

    assert (summary.status, summary.population, summary.rejected) == ("published", ROWS, 9)
    missing = finding(summary, "rows.missing")
    assert "9 of 400 entities have no row" in missing.reason
    assert "10 of its 401 rows are of nobody in the population" in missing.reason
    from_files = served(world)
    assert [row.id for row in map(_Row, from_files) if row.rejected == "no_features"] == list(range(201, 210))
    # The same features as a query, scored by the same model.
    world.execute("CREATE TABLE public.features (id bigint, a double precision, b double precision, c text)")
    values = [
        f"({row['id']}, {row['a']!r}, {row['b']!r}, '{row['c']}')"
        for row in pa.concat_tables([first, rows(range(210, ROWS + 1))]).to_pylist()
    ]
    world.execute(f"INSERT INTO public.features VALUES {', '.join(values)}")
    query = "SELECT b.id, b.as_of, f.a, f.b, f.c FROM batch AS b JOIN public.features AS f USING (id)"
    make_pipeline(world, toml=TOML.format(features='query = "features.sql"'), features=query, changes=None)
    again = world.score()
    assert again.mode == "full"
    assert served(world) == from_files


class _Row:
    def __init__(self, row: Any) -> None:
        self.id, self.rejected = row[0], row[1]


def test_uuid_date_and_time_columns_are_those_of_the_type_table(tmp_path: Path) -> None:
    raw = [bytes(range(16)), bytes(range(16, 32))]
    table = pa.table(
        {
            "id": pa.array(raw, pa.binary(16)),
            "day": pa.array([0, 1], pa.int32()).cast(pa.date32()).cast(pa.date64()),
            "at": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns", "Europe/Paris")),
            "n": pa.array([1, 2], pa.uint16()),
            "d": pa.array([1, 2]).cast(pa.decimal128(38, 2)),
            "t": pa.array(["x", None], pa.large_string()),
            "f": pa.array([True, None]),
        }
    )
    key = (Column(name="id", postgres_type="uuid"), Column(name="day", postgres_type="date"))
    write(tmp_path / "lake", one=table)
    found = datasets.look(_declared(tmp_path / "lake"), tmp_path, key)
    types = {column.name: column.postgres_type for column in found.features}
    assert types == {"at": "timestamp with time zone", "n": "integer", "d": "numeric", "t": "text", "f": "boolean"}

    wanted = pa.table(
        {
            "id": ["00010203-0405-0607-0809-0a0b0c0d0e0f"],
            "day": pa.array([0], pa.int32()).cast(pa.date32()),
            "as_of": pa.array([datetime(2026, 3, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        }
    )
    read = dataset_rows.read_table(found, key, found.features, wanted)
    assert read.num_rows == 1
    assert read.column("id").to_pylist() == wanted.column("id").to_pylist()
    assert read.schema.types == [column.arrow_type for column in key] + [
        pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC"), pa.int32(), pa.float64(), pa.string(), pa.bool_()
    ]  # fmt: skip
    assert read.column("at")[0].as_py().microsecond == 123_456


def _declared(path: Path | str, **options: Any) -> Any:
    from tasks.declaration import Dataset

    return Dataset(url=str(path), **options)


# What is refused -----------------------------------------------------------------------------------------------------


def _struct(table: pa.Table) -> pa.Table:
    return table.append_column("s", pa.array([{"x": 1}] * table.num_rows))


def _retyped(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, table.column(name).cast(kind))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "it holds no Parquet file"),
        ({"one": rows([])}, "its files hold no row"),
        ({"one": rows([1]).drop_columns(["id"])}, "it does not hold id (it holds a, b, c)"),
        ({"one": rows([1]).select(["id"])}, "no feature beside the key"),
        ({"one": _retyped(rows([1]), "id", pa.string())}, "id is text, and bigint in the population"),
        ({"one": _retyped(rows([1]), "id", pa.float64())}, "id is double precision, and bigint"),
        ({"one": _retyped(rows([1]), "id", pa.uint64())}, "write CAST(x AS BIGINT)"),
        (
            {"one": rows([1]), "two": rows([2]).rename_columns(["ID", "a", "b", "c"])},
            "column id is missing in two.parquet",
        ),
    ],
)
def test_files_that_cannot_be_features_are_refused_by_name(
    tmp_path: Path, files: dict[str, pa.Table], told: str
) -> None:
    write(tmp_path / "lake", **files)
    with pytest.raises(DatasetRefused) as refused:
        datasets.look(_declared(tmp_path / "lake"), tmp_path, KEY)
    assert told in str(refused.value)
    assert "what was published is still served" in str(refused.value)


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        (rows([1]), rows([2]).drop_columns(["b"]), "column b is missing in two.parquet"),
        (
            rows([1]),
            _retyped(rows([2]), "a", pa.string()),
            "column a is double precision in one.parquet and text in two",
        ),
        (
            _struct(rows([1])),
            _struct(rows([2])),
            "column s is of type struct<x: int64>, which cannot be a feature; write a ",
        ),
        (rows([1], as_of=WRITTEN), rows([2], as_of=WRITTEN), 'declare as_of = "as_of"'),
    ],
)
def test_columns_that_files_do_not_agree_on_are_refused_where_they_are_taken(
    tmp_path: Path, one: pa.Table, two: pa.Table, told: str
) -> None:
    write(tmp_path / "lake", one=one, two=two)
    found = datasets.look(_declared(tmp_path / "lake"), tmp_path, KEY)
    (problem,) = found.problems
    with pytest.raises(DatasetRefused) as refused:
        found.require_usable()
    assert told in str(refused.value)
    with pytest.raises(DatasetRefused):
        found.require_usable([problem])
    # What nobody takes is in nobody's way; integers and floats of other widths agree.
    found.require_usable(["c"])
    wide = _retyped(rows([2]), "id", pa.int16())
    write(tmp_path / "lake", two=_retyped(wide, "a", pa.float32()), one=rows([1]))
    assert datasets.look(_declared(tmp_path / "lake", columns=("a",)), tmp_path, KEY).types["a"] == "double precision"


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ('dataset = "lake"\nquery = "features.sql"', "remove the other"),
        ("valid_for = '1d'", "name Parquet files with dataset"),
        ('dataset = { url = "s3://a:b@c/d" }', "holds a password"),
        ('dataset = { url = "lake", asof = "t" }', 'did you mean "as_of"'),
        ('dataset = { url = "lake", columns = ["x", "x"] }', "name it once"),
        ('dataset = { url = "lake", warn_after = "2h", fail_after = "1h" }', "is above fail_after"),
        ("dataset = 3", "expected a table"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(tmp_path: Path, features: str, told: str) -> None:
    world = World(url="", settings=make_world("", tmp_path, rows=None).settings)
    with pytest.raises(PipelineInvalid) as refused:
        make_pipeline(world, toml=TOML.format(features=features), changes=None)
    assert told in str(refused.value)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def _replace(path: Path) -> None:
    pq.write_table(rows(range(1, ROWS + 1), a=np.zeros(ROWS)), path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def _overwrite(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


def _add(path: Path) -> None:
    shutil.copy(path, path.with_name("other.parquet"))


@pytest.mark.parametrize("disturb", [_truncate, _replace, _overwrite, Path.unlink, _add])
@pytest.mark.parametrize("after", [0, 1])
def test_files_that_change_while_they_are_read_end_the_reading(
    tmp_path: Path, disturb: Callable[[Path], None], after: int
) -> None:
    lake = write(tmp_path / "lake", one=rows(range(1, ROWS + 1)))
    found = datasets.look(_declared(lake), tmp_path, KEY)
    pairs = Pairs.of([pa.table({"id": pa.array(range(1, ROWS + 1), pa.int64())})], KEY, WRITTEN)
    batches = dataset_rows.read(found, KEY, found.features, pairs)
    for _ in range(after):
        next(batches)
    disturb(lake / "one.parquet")
    with pytest.raises((DatasetChanged, DatasetRefused)) as ended:
        list(batches)
    assert isinstance(ended.value, DatasetChanged) or "no such file" in str(ended.value)


def test_a_run_over_files_that_change_publishes_nothing(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = write(tmp_path / "lake", one=rows(range(1, ROWS + 1)))
    world = dataset_world(database_url, tmp_path)
    first = world.score()
    before = served(world)
    read = dataset_rows.read

    def disturbed(*args: Any, **options: Any) -> Any:
        _replace(lake / "one.parquet")
        return read(*args, **options)

    monkeypatch.setattr(dataset_rows, "read", disturbed)
    with pytest.raises(DatasetChanged, match="was replaced, added or removed"):
        world.score(full=True)
    assert served(world) == before
    assert world.one("SELECT generation_id FROM prescore.head") == {"generation_id": first.generation_id}
    (lake / "one.parquet").write_bytes(b"PAR1 half a file")
    with pytest.raises(DatasetRefused, match=r"one.parquet is no whole Parquet file"):
        world.score(full=True)
    (row,) = health.read_health(world.url)
    assert (row.last_run_status, row.generation_id) == ("failed", first.generation_id)


def test_entities_with_two_rows_and_rows_without_a_key_are_refused_and_listed(
    database_url: str, tmp_path: Path
) -> None:
    lake = write(tmp_path / "lake", one=rows(range(1, ROWS + 1)))
    world = dataset_world(database_url, tmp_path)
    write(lake, one=rows([*range(1, ROWS + 1), 7, 7, 9, 9001, 9001]))
    with pytest.raises(DuplicateEntities) as refused:
        world.score()
    assert refused.value.entities == 2
    listed = world.rows("SELECT key->>'id', reason FROM prescore.rejections ORDER BY 1")
    assert listed == [("7", "duplicate_features"), ("9", "duplicate_features")]
    # The entity query is to blame when it is.
    write(lake, one=rows(range(1, ROWS + 1)))
    twice = TOML.replace("SELECT id FROM public.items", "SELECT id FROM public.items UNION ALL SELECT 5")
    make_pipeline(world, toml=twice.format(features=f'dataset = "{lake}"'), changes=None)
    with pytest.raises(DuplicateEntities, match=r"entity"):
        world.score()
    make_pipeline(world, toml=TOML.format(features=f'dataset = "{lake}"'), changes=None)
    null = pa.concat_tables([rows([1]), rows([2]).set_column(0, "id", pa.array([None], pa.int64()))])
    write(lake, one=null)
    with pytest.raises(DatasetRefused, match=r"one.parquet holds 1 or more rows with a NULL in id"):
        world.score()


# As time goes by -----------------------------------------------------------------------------------------------------


def test_an_incremental_run_scores_the_rows_that_are_newer(database_url: str, tmp_path: Path) -> None:
    # One row has the newest instant; it is read again, since others may have come with the same.
    instants = [WRITTEN - timedelta(hours=1 if i == 1 else 2) for i in range(1, ROWS + 1)]
    one = rows(range(1, ROWS + 1), updated_at=instants)
    lake = write(tmp_path / "lake", one=one)
    url = f'dataset = {{ url = "{lake}", updated_at = "updated_at", fail_after = "3d" }}'
    world = dataset_world(database_url, tmp_path, url)
    first = world.score()
    assert finding(first, "source.age", "dataset").verdict == "pass"
    # No better than the data: the newest row is older than the file, and both are older than the run.
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == WRITTEN - timedelta(hours=1)
    again = world.score()
    assert (again.mode, again.changed, again.scored) == ("incremental", 0, 0)

    later = WRITTEN + timedelta(hours=1)
    newer = rows([3, 5, 8, 9001], a=np.array([9.0, 9.0, 9.0, 9.0]), updated_at=later)
    kept = one.filter(pc.invert(pc.is_in(one.column("id"), value_set=pa.array([3, 5, 8]))))
    write(lake, at=later, one=pa.concat_tables([kept, newer.select(one.column_names)]))
    third = world.score()

    assert third.because == ""
    assert (third.mode, third.changed, third.scored) == ("incremental", 4, 4)
    incremental = served(world)
    assert world.score(full=True).status == "published"
    assert served(world) == incremental
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == later


def test_a_dataset_that_changed_makes_a_run_full_where_nothing_says_which_rows(
    database_url: str, tmp_path: Path
) -> None:
    lake = write(tmp_path / "lake", one=rows(range(1, ROWS + 1)))
    world = dataset_world(
        database_url, tmp_path, f'dataset = {{ url = "{lake}", warn_after = "10h", fail_after = "15h" }}'
    )
    # Data of yesterday is too old, and so is every run over it, however new the run is.
    first = world.score()
    assert finding(first, "source.age", "dataset").verdict == "fail"
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == WRITTEN
    assert world.score().mode == "incremental"
    write(lake, at=datetime.now(UTC), one=rows(range(1, ROWS + 1), b=np.full(ROWS, 0.5)))
    second = world.score()
    assert (second.mode, second.because) == ("full", "the dataset changed, and nothing says which of its rows")
    now = world.one("SELECT data_as_of, as_of FROM prescore.head")
    assert WRITTEN < now["data_as_of"] <= now["as_of"]


def test_with_an_instant_the_newest_known_row_counts_in_scoring_and_in_training(
    database_url: str, tmp_path: Path
) -> None:
    days = [WRITTEN - timedelta(days=day) for day in (40, 20, 10)]
    history = pa.concat_tables(
        [rows(range(1, ROWS + 1), known_at=at, a=np.sin(np.arange(1, ROWS + 1)) + i) for i, at in enumerate(days)]
        # The newest one, which changes nothing.
        + [rows([1], known_at=days[2] + timedelta(hours=1), a=np.sin([1]) + 2)]
        # Known from tomorrow on: no run of today may see it.
        + [rows(range(1, ROWS + 1), known_at=WRITTEN + timedelta(days=3), a=np.full(ROWS, 99.0))]
    )
    lake = write(tmp_path / "lake", one=history)
    labels = "SELECT id, as_of, (id % 2)::int AS label FROM public.items, unnest(ARRAY[{}]::timestamptz[]) AS as_of"
    instants = ", ".join(f"'{at + timedelta(days=1)}'" for at in days)
    training = '\n[training]\nlabels = "labels.sql"\nestimator = "model.py:build_model"\n'
    code = (
        "from sklearn.ensemble import HistGradientBoostingClassifier\n\n\n"
        "def build_model():\n    return HistGradientBoostingClassifier(max_iter=5)\n\n\n"
        "def preprocess(frame):\n    return frame[['a', 'b']]\n"
    )
    world = make_world(database_url, tmp_path / "pipelines", rows=ROWS)
    features = f'dataset = {{ url = "{lake}", as_of = "known_at" }}\npreprocess = "model.py:preprocess"'
    files = {"labels.sql": labels.format(instants), "model.py": code}
    pipeline = make_pipeline(world, toml=TOML.format(features=features) + training, changes=None, files=files)

    summary = train(world.settings, "items", promote=True)

    from tasks.features import training_frame

    frame = training_frame(world.url, pipeline, datetime.now(UTC))
    assert frame.num_rows == 3 * ROWS
    seen = np.sin(frame.column("id").to_numpy()) - frame.column("a").to_numpy()
    expected = -np.array([days.index(at - timedelta(days=1)) for at in frame.column("as_of").to_pylist()])
    assert np.allclose(seen, expected)
    assert summary.rows_fitted + summary.rows_held_out == 3 * ROWS
    first = world.score()
    assert (first.status, first.rejected) == ("published", 0)
    assert world.one("SELECT data_as_of FROM prescore.head")["data_as_of"] == days[2] + timedelta(hours=1)
    # One more row for one entity: only it is scored again.
    more = rows([17], known_at=WRITTEN - timedelta(days=1), a=np.array([5.0]))
    write(lake, two=more.select(history.column_names))
    second = world.score()
    assert second.because == ""
    assert (second.mode, second.changed, second.scored) == ("incremental", 2, 2)
    # Without the instant it would learn from what was known later.
    write(lake, one=rows(range(1, ROWS + 1)), two=rows([9001]))
    features = f'dataset = "{lake}"\npreprocess = "model.py:preprocess"'
    make_pipeline(world, toml=TOML.format(features=features) + training, changes=None, files=files)
    with pytest.raises(DatasetRefused, match="would see the future"):
        train(world.settings, "items")


def test_check_looks_at_the_files_too(database_url: str, tmp_path: Path) -> None:
    lake = write(tmp_path / "lake", one=_struct(rows(range(1, ROWS - 50))))
    world = dataset_world(database_url, tmp_path)
    (report,) = check(world.settings, "items")
    warnings = "\n".join(report.warnings)
    assert report.errors == ()
    assert "column s is of type struct" in warnings
    assert "no column says how new its rows are" in warnings
    shutil.rmtree(lake)
    (report,) = check(world.settings, "items")
    assert "there is no such file or folder" in report.errors[0]


def test_only_row_groups_and_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    lake = write(tmp_path / "lake", one=rows(range(1, ROWS + 1)))
    found = datasets.look(_declared(lake, columns=("a",)), tmp_path, KEY)
    pairs = Pairs.of([pa.table({"id": pa.array([150], pa.int64())})], KEY, WRITTEN)
    batches = list(dataset_rows._scan(found, KEY, found.features, pairs))
    assert sum(batch.num_rows for batch in batches) == 100
    assert batches[0].schema.names == ["id", "a"]
    assert KEYS_PER_QUERY > 1
