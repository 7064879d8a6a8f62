"""Nights in which the database server is restarted under a run, and nights in which its disk is full.

The server is one of this module's own, whose commits survive it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from tasks import embedded, faults, migrations
from tasks.checks import storage
from tasks.embedded.folder import Place
from tasks.embedded.postmaster import is_alive, read_postmaster
from tasks.embedded.programs import account_of, programs_in_use
from tasks.embedded.programs import run as run_as
from tasks.errors import EmbeddedDatabaseError, PrescoreError
from tasks.runs import Status
from tests.conftest import execute, psql_url
from tests.nights import LONGEST_DELAY, Night, Once, make_night, reading
from tests.servers import main_server, short_lived

pytestmark = pytest.mark.xdist_group("nights of servers")

# Nothing is forced to disk, which the machine outlives; a commit is written before it is answered, which the server needs.
SETTINGS = {"fsync": "off", "shared_buffers": "32MB", "max_connections": "50", "max_wal_size": "64MB"}


@dataclass(frozen=True)
class OwnServer:
    """A server that can be ended and started."""

    folder: Path
    recipe: embedded.Recipe

    def start(self) -> str:
        """Start it, and return its address."""
        return embedded.ensure_running(self.folder, recipe=self.recipe)

    def stop(self, mode: str) -> None:
        """End it: fast as an administrator does, or immediate, as if its processes had been killed."""
        place = Place(data_dir=self.folder)
        command = [programs_in_use(place) / "pg_ctl", "stop", "-D", place.cluster, "-m", mode, "-w"]
        done = run_as(command, account=account_of(place), cwd=place.cluster)
        assert done.returncode == 0, done.stderr

    def restart(self, mode: str) -> None:
        """End it and start it again."""
        self.stop(mode)
        self.start()

    def is_up(self) -> bool:
        """Say whether it runs."""
        postmaster = read_postmaster(Place(data_dir=self.folder))
        return postmaster is not None and is_alive(postmaster, Place(data_dir=self.folder))

    def new_database(self, name: str, options: str = "") -> str:
        """Make a migrated database and return its address."""
        url = self.start()
        execute(psql_url(url, "postgres"), f"CREATE DATABASE {name} {options}")
        migrations.apply(psql_url(url, name))
        return psql_url(url, name)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(dir=short_lived(), prefix="prescore-night-"))
    folder.chmod(0o755)
    recipe = embedded.Recipe(binaries=main_server().binaries, settings=SETTINGS, durable=False)
    try:
        yield OwnServer(folder, recipe)
    finally:
        with suppress(EmbeddedDatabaseError):
            embedded.stop(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def night(server: OwnServer, tmp_path_factory: pytest.TempPathFactory) -> Night:
    return make_night(server.new_database("night"), tmp_path_factory.mktemp("night"))


# Restarts --------------------------------------------------------------------------------------------------------------

MID_SHARD = ("stream.batch", True, "immediate")
MID_MERGE = ("publish.merged", False, "fast")
MID_PUBLICATION = ("publish.before_commit", False, "immediate")
PLACES = (
    "run.opened",
    "snapshot.exported",
    "population.selected",
    "storage.cleared",
    "stream.batch",
    "copy.sent",
    "copy.finished",
    "outputs.judged",
    "publish.begun",
    "publish.merged",
    "publish.head_moved",
    "publish.before_commit",
    "publish.committed",
    "retired.cleared",
)


@pytest.mark.parametrize(
    "places",
    [
        (MID_PUBLICATION,),
        pytest.param((MID_SHARD, MID_MERGE), marks=pytest.mark.slow),
        pytest.param(
            tuple((point, full, mode) for point in PLACES for full in (True, False) for mode in ("fast", "immediate")),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["mid-publication", "mid-shard and mid-merge", "everywhere"],
)
def test_a_server_that_is_restarted_under_a_run_serves_what_it_served_and_the_next_run_begins_anew(
    server: OwnServer, night: Night, places: tuple[tuple[str, bool, str], ...]
) -> None:
    chance = random.Random(6)
    with reading(night) as reader:
        for point, full, mode in places:
            night.change(chance)
            lost = reader.lost
            restarted: list[str] = []

            def restart(at: str, point: str = point, mode: str = mode, restarted: list[str] = restarted) -> None:
                if at == point and not restarted:
                    restarted.append(at)
                    server.restart(mode)

            with faults.listening(restart):
                require_told(night, full=full, published=point in {"publish.committed", "retired.cleared"})
            assert restarted == [point]
            night.require_next_run_needs_no_hands(full=full)
            assert reader.lost > lost
    assert night.statuses().count("running") == 0


@pytest.mark.slow
def test_a_server_that_is_restarted_at_random_moments_serves_what_it_served(server: OwnServer, night: Night) -> None:
    chance = random.Random(7)
    with reading(night):
        for _ in range(30):
            night.change(chance)
            mode, full = chance.choice(("fast", "immediate")), chance.random() < 0.5
            moment = Once(
                chance.randint(1, 33), chance.uniform(0, LONGEST_DELAY), lambda mode=mode: server.restart(mode)
            )
            with faults.listening(moment), suppress(PrescoreError):
                night.world.score(full=full)
            moment.join()
            night.look()
            night.require_next_run_needs_no_hands(full=chance.random() < 0.5)


@pytest.mark.slow
def test_a_server_that_is_restarted_between_shards_keeps_those_that_are_finished(
    server: OwnServer, tmp_path: Path
) -> None:
    night = make_night(server.new_database("shards"), tmp_path, rows=1_900, toml="[execution]\nshards = 4\n")
    finished: list[str] = []

    def restart(at: str) -> None:
        if at == "copy.finished":
            finished.append(at)
            if len(finished) == 2:
                server.restart("immediate")

    with reading(night):
        with faults.listening(restart):
            require_told(night, full=True, published=False)
        again = night.world.score(full=True)
        assert again.status is Status.PUBLISHED
        assert "of 4 shards" in again.message
        assert night.look()
        night.require_nothing_left()


@pytest.mark.slow
def test_a_server_that_is_down_refuses_the_run_which_changes_nothing(server: OwnServer, night: Night) -> None:
    before = night.statuses()
    server.stop("fast")
    try:
        with pytest.raises(PrescoreError, match="No connection to database night"):
            night.world.score()
    finally:
        server.start()
    assert night.statuses() == before
    assert not night.look()
    night.require_next_run_needs_no_hands()


def require_told(night: Night, *, full: bool, published: bool) -> None:
    """Run, and fail unless the run says in words for people how it ended, and its record says the same."""
    raised: PrescoreError | None = None
    try:
        summary = night.world.score(full=full)
    except PrescoreError as error:
        raised = error
    last = night.last_run()
    assert night.look() == published
    if published:
        assert raised is None
        assert (summary.status, last["status"]) == (Status.PUBLISHED, Status.PUBLISHED)
    else:
        assert "was not touched" in str(raised) or "still served" in str(raised)
        assert (last["status"], last["message"]) == (Status.FAILED, str(raised))


# Full disks ------------------------------------------------------------------------------------------------------------

FULL = "no space is left on the disk of the database|No space left on device"


@pytest.mark.slow
def test_a_full_disk_fails_the_run_alone_and_the_next_one_needs_only_space(
    server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SPARE_BYTES", 0)  # or else the run would be held before it begins to write
    with small_disk(server, "64m") as disk:
        chance, name = random.Random(8), f"full_{uuid.uuid4().hex[:8]}"
        server.start()
        execute(psql_url(server.start(), "postgres"), f"CREATE TABLESPACE {name} LOCATION '{disk / 'space'}'")
        try:
            night = make_night(server.new_database(name, f"TABLESPACE {name}"), tmp_path)
            with reading(night):
                for point, full in (("storage.cleared", True), ("copy.finished", True), ("publish.begun", False)):
                    night.change(chance)
                    outcome = run_on_a_full_disk(night, disk, point, full=full)
                    assert re.search(FULL, outcome) or (not outcome and point != "storage.cleared"), outcome
                    night.look()
                    night.require_next_run_needs_no_hands(full=full)
        finally:
            url = psql_url(server.start(), "postgres")
            execute(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            execute(url, f"DROP TABLESPACE {name}")


def run_on_a_full_disk(night: Night, disk: Path, point: str, *, full: bool) -> str:
    """Run, and let others fill the disk when the run is at a point; return what the run said, nothing if it published."""
    filler = disk / "of others"

    def fill(at: str) -> None:
        if at == point and not filler.exists():
            fill_up(filler)

    said = ""
    try:
        with faults.listening(fill):
            assert night.world.score(full=full).status is Status.PUBLISHED
    except PrescoreError as error:
        said = str(error)
    finally:
        filler.unlink(missing_ok=True)
    if said:
        last = night.last_run()
        # It cannot be written how a run ended either, perhaps: then the next one finds out.
        assert (last["status"], last["message"]) in {(Status.FAILED, said), (Status.RUNNING, None)}
        assert "still served" in said
    return said


@pytest.mark.slow
def test_a_log_that_finds_no_space_ends_the_server_and_what_was_served_is_there_when_it_is_back(
    tmp_path: Path, server: OwnServer
) -> None:
    night = make_night(server.new_database("logged"), tmp_path)
    server.stop("fast")
    cluster = Place(data_dir=server.folder).cluster
    with small_disk(server, "96m") as disk:
        os.rename(cluster / "pg_wal", cluster / "pg_wal.before")
        shutil.copytree(cluster / "pg_wal.before", disk / "space" / "pg_wal", copy_function=shutil.copy)
        owner = account_of(Place(data_dir=server.folder)).owner
        for path in [disk / "space" / "pg_wal", *(disk / "space" / "pg_wal").rglob("*")]:
            if owner is not None:
                os.chown(path, *owner)
            path.chmod(0o700 if path.is_dir() else 0o600)
        (cluster / "pg_wal").symlink_to(disk / "space" / "pg_wal")
        server.start()
        filler = disk / "of others"

        def fill(at: str) -> None:
            if at == "copy.sent" and not filler.exists():
                fill_up(filler)
                until = time.monotonic() + 60
                with suppress(psycopg2.Error):
                    while time.monotonic() < until:  # until the server finds no room for the next segment
                        night.world.rows("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'x', 'x')")

        try:
            with faults.listening(fill), pytest.raises(PrescoreError):
                night.world.score(full=True)
            filler.unlink()
            server.start()
            assert not night.look()
            assert night.last_run()["status"] in {Status.FAILED, Status.RUNNING}
            night.require_next_run_needs_no_hands(full=True)
        finally:
            filler.unlink(missing_ok=True)
            if server.is_up():
                server.stop("fast")
            (cluster / "pg_wal").unlink()
            shutil.rmtree(cluster / "pg_wal.before")
            shutil.copytree(disk / "space" / "pg_wal", cluster / "pg_wal", copy_function=shutil.copy2)
            for path in [cluster / "pg_wal", *(cluster / "pg_wal").rglob("*")]:
                if owner is not None:
                    os.chown(path, *owner)
            server.start()


@contextmanager
def small_disk(server: OwnServer, size: str) -> Iterator[Path]:
    """Mount a small file system with a folder ``space`` for the server; skip the test where that is not allowed."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="prescore-disk-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        folder.rmdir()
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        server.start()
        owner = account_of(Place(data_dir=server.folder)).owner
        (folder / "space").mkdir(mode=0o700)
        if owner is not None:
            os.chown(folder / "space", *owner)
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
        with suppress(OSError):
            folder.rmdir()


def fill_up(file: Path) -> None:
    """Write until nothing is free any more."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"\0" * 65536)
    with file.open("ab", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(b"\0" * 512)
