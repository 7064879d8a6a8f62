"""Rows that compiled code decodes: the same as the driver reads, for every type, and the same errors."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from tasks import transport
from tasks.columns import Column, SchemaDiffers
from tasks.compiled import library
from tasks.compiled.library import NotCompiled
from tasks.compiled.rows import ROWS, Decoder, load_decoder
from tasks.database import connect, raw_execute
from tasks.transport import Session, StatementFailed, open_snapshot_session
from tests.database.test_columns import LONGEST, OWN_TYPES, READ
from tests.disturbances import wait_until
from tests.factories import World, make_world

TYPES = [kind for kind, (known, _, _) in READ.items() if not known.endswith("[]")]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return load_decoder(tmp_path_factory.mktemp("data") / "compiled")


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> World:
    return make_world(database_url, tmp_path, rows=None)


@contextmanager
def snapshot_session(world: World) -> Iterator[Session]:
    """Open a session that sees an exported snapshot, as a run does."""
    with connect(world.url) as holder:
        raw_execute(holder, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        name = raw_execute(holder, "SELECT pg_export_snapshot()").fetchone()[0]
        with open_snapshot_session(world.url, name) as session:
            yield session


def read(session: Session, statement: str, columns: Sequence[Column], decoder: Decoder | None) -> list[pa.RecordBatch]:
    """Read a query, by the decoder if there is one and else by the driver."""
    with session.stream(statement, "A query", ahead=False, columns=columns, decoder=decoder) as batches:
        return list(batches)


@pytest.mark.parametrize("batch_bytes", [8 * 1024 * 1024, 400], ids=["one batch", "many batches"])
def test_every_type_is_decoded_as_the_driver_reads_it(
    world: World, decoder: Decoder, batch_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Extremes, missing values, and a text that is larger than a batch; each value beside those of all other types."""
    world.execute(OWN_TYPES)
    monkeypatch.setattr(transport, "BATCH_BYTES", batch_bytes)
    columns = [Column(name=f"c{at}", postgres_type=READ[kind][0]) for at, kind in enumerate(TYPES)]
    longest = max(len(READ[kind][1]) for kind in TYPES)
    rows = []
    for i in range(2 * longest):
        values = (READ[kind][1] for kind in TYPES)
        typed = (f"{some[i % len(some)]}::{kind}" for some, kind in zip(values, TYPES, strict=True))
        rows.append("SELECT " + ", ".join(f"{value} AS c{at}" for at, value in enumerate(typed)))
    named = ", ".join(f"{column.read(f'x.{column.name}')} AS {column.name}" for column in columns)
    statement = f"SELECT {named} FROM ({' UNION ALL '.join(rows)}) AS x"

    with snapshot_session(world) as session:
        by_driver = read(session, statement, columns, None)
        decoded = read(session, statement, columns, decoder)

    expected, found = pa.Table.from_batches(by_driver), pa.Table.from_batches(decoded)
    found.validate(full=True)
    assert found.schema == expected.schema
    assert found.num_rows == 2 * longest
    for name in expected.column_names:
        assert spelled(found.column(name)) == spelled(expected.column(name)), name
    assert (len(decoded) > 1) == (batch_bytes == 400)
    assert max(len(text or "") for text in found.column(f"c{TYPES.index('text')}").to_pylist()) == len(LONGEST)


def spelled(values: pa.ChunkedArray) -> list[object]:
    """Return values so that NaN equals NaN and -0.0 does not equal 0.0."""
    return [struct.pack("d", value) if isinstance(value, float) else value for value in values.to_pylist()]


def test_many_rows_come_in_batches_that_are_bounded_and_in_order(world: World, decoder: Decoder) -> None:
    """Texts that grow tenfold on the way end a batch early, and missing ones come and go."""
    statement = (
        "SELECT x::bigint AS id, repeat('t', CASE WHEN x > 60000 THEN 200 ELSE x % 20 END::integer) AS t, "
        "CASE WHEN x % 3 > 0 THEN x / 2.0::double precision END AS f, x % 2 = 0 AS b FROM generate_series(1, 100000) AS x"
    )
    kinds = {"id": "bigint", "t": "text", "f": "double precision", "b": "boolean"}
    columns = [Column(name=name, postgres_type=kind) for name, kind in kinds.items()]
    with snapshot_session(world) as session:
        expected = pa.Table.from_batches(read(session, statement, columns, None))
        decoded = read(session, statement, columns, decoder)
    assert pa.Table.from_batches(decoded).equals(expected)
    assert all(batch.num_rows for batch in decoded)
    assert max(batch.get_total_buffer_size() for batch in decoded) < 3 * transport.BATCH_BYTES


def test_a_query_without_rows_gives_no_batch(world: World, decoder: Decoder) -> None:
    with snapshot_session(world) as session:
        assert (
            read(session, "SELECT 1::bigint AS id WHERE false", [Column(name="id", postgres_type="bigint")], decoder)
            == []
        )


@pytest.mark.parametrize(
    ("statement", "cause", "sqlstate"),
    [
        ("SELECT 1 / (x - 50000)::bigint AS id FROM generate_series(1, 100000) AS x", "division by zero", "22012"),
        (
            "SELECT ('secret-' || x)::bigint AS id FROM generate_series(1, 9) AS x",
            "invalid input syntax for type bigint",
            "22P02",
        ),
        ("SELECT id FROM public.nowhere", 'relation "public.nowhere" does not exist', "42P01"),
    ],
    ids=["in the middle", "with a value", "at once"],
)
def test_what_the_server_refuses_is_told_as_the_driver_tells_it(
    world: World, decoder: Decoder, statement: str, cause: str, sqlstate: str
) -> None:
    columns = [Column(name="id", postgres_type="bigint")]
    for how in (None, decoder):
        with snapshot_session(world) as session, pytest.raises(StatementFailed) as raised:
            read(session, statement, columns, how)
        assert cause in str(raised.value)
        assert "still served" in str(raised.value)
        assert "secret-" not in str(raised.value)
    assert raised.value.sqlstate == sqlstate  # which the driver does not tell in the middle


def test_a_column_of_another_type_is_refused(world: World, decoder: Decoder) -> None:
    columns = [Column(name="id", postgres_type="bigint")]
    with snapshot_session(world) as session, pytest.raises(SchemaDiffers, match="column id has another width"):
        read(session, "SELECT 1::integer AS id", columns, decoder)


def test_it_sees_the_snapshot_and_cannot_write(world: World, decoder: Decoder) -> None:
    columns = [Column(name="n", postgres_type="bigint")]
    world.execute("CREATE TABLE public.seen AS SELECT 1 AS x")
    with snapshot_session(world) as session:
        world.execute("INSERT INTO public.seen VALUES (2)")
        (batch,) = read(session, "SELECT count(*) AS n FROM public.seen", columns, decoder)
        assert batch.to_pylist() == [{"n": 1}]
        with pytest.raises(StatementFailed, match="read-only transaction"):
            read(session, "SELECT lo_create(0)::bigint AS n", columns, decoder)


def end_by_cancelling(world: World, session: Session) -> None:
    session.cancel()


def end_by_terminating(world: World, session: Session) -> None:
    world.rows(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    )


@pytest.mark.parametrize(
    ("end", "cause"),
    # The server's last words may be lost with its connection.
    [
        (end_by_cancelling, "canceling statement"),
        (end_by_terminating, "terminating connection|server closed the connection"),
    ],
    ids=["cancelled", "terminated"],
)
def test_a_query_that_is_ended_in_the_middle_ends_the_reading(
    world: World, decoder: Decoder, end: Callable[[World, Session], None], cause: str
) -> None:
    ended: list[threading.Thread] = []

    def first_seen(batches: Iterator[pa.RecordBatch]) -> None:
        for _ in batches:
            if not ended:
                ended.append(threading.Thread(target=end, args=(world, session)))
                ended[0].start()

    with snapshot_session(world) as session, pytest.raises(StatementFailed, match=cause):
        use(session, decoder, first_seen)
    ended[0].join()


def use(session: Session, decoder: Decoder, work: Callable[[Iterator[pa.RecordBatch]], object]) -> None:
    """Hand the batches of a query that never ends to somebody."""
    statement = "SELECT generate_series(1, 1000000000)::bigint AS id"
    columns = [Column(name="id", postgres_type="bigint")]
    with session.stream(statement, "A query", ahead=False, columns=columns, decoder=decoder) as batches:
        work(batches)


def test_leaving_early_ends_the_query(world: World, decoder: Decoder) -> None:
    def fail(batches: Iterator[pa.RecordBatch]) -> None:
        raise KeyError(next(batches).num_rows)

    with snapshot_session(world) as session:
        with pytest.raises(KeyError):
            use(session, decoder, fail)
        use(session, decoder, next)
    copying = (
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' AND state = 'active'"
    )
    wait_until(world, f"SELECT 1 WHERE NOT EXISTS ({copying})")


def test_lists_are_left_to_the_driver(decoder: Decoder) -> None:
    assert decoder.decodes([Column(name="x", postgres_type=kind) for kind in ("uuid", "date", "real")])
    assert not decoder.decodes([Column(name="x", postgres_type="text[]")])


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("four(p) + (uint32_t)to->shift", "four(p)"),
        ("to->valid[i >> 3] &= (uint8_t)~(1u << (i & 7));", ""),
        ("__builtin_bswap64(x)", "x"),
    ],
    ids=["days", "missing values", "order of bytes"],
)
def test_a_library_that_decodes_otherwise_is_not_used(tmp_path: Path, right: str, wrong: str) -> None:
    folder = tmp_path / "data" / "compiled"
    library.require_safe(folder)
    place = folder / f"{ROWS}-{library.source_key(ROWS)}" / "library.so"
    place.parent.mkdir(mode=0o700)
    code = place.with_name("source.c")
    code.write_text(library.source_of(ROWS).replace(right, wrong))
    assert code.read_text() != library.source_of(ROWS)
    subprocess.run([*library.find_compiler(), *library._OPTIONS, "-o", str(place), str(code)], check=True)
    place.chmod(0o700)
    place.with_name("library.so.sha256").write_text(hashlib.sha256(place.read_bytes()).hexdigest())
    with pytest.raises(NotCompiled, match="decode"):
        load_decoder(folder)
