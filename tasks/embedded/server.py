"""Starting the server: its configuration, port and socket, and why it did not start."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tasks.embedded.folder import Place, Recipe, read_state, remember, write_file
from tasks.embedded.postmaster import START_SECONDS, release_process_ids, wait_until_ready
from tasks.embedded.programs import Account, complaints_in, reason_in, run
from tasks.errors import EmbeddedServerFailed, EmbeddedServerUnavailable

# Below the ports that Linux (32768) and macOS (49152) hand out to outgoing connections, so that a chosen port is
# still free after a restart.
_PORTS = range(20000, 30000)
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_LONGEST_SOCKET_PATH = 103

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


def start(place: Place, programs: Path, recipe: Recipe, account: Account) -> None:
    """Start the server; it belongs to no terminal and to no process of ours."""
    deadline = time.monotonic() + START_SECONDS
    port = _free_port(read_state(place).port)
    while True:
        folder = _socket_folder(place, account)
        _write_configuration(place, recipe, account, port, folder)
        remember(place, port=port, socket_folder=str(folder))
        release_process_ids(place, account)
        before = _log_sizes(place)
        command = [programs / "pg_ctl", "start", "-D", place.cluster, "-l", place.start_log, "-w", "-t", START_SECONDS]
        done = run(command, account=account, cwd=place.cluster)
        if done.returncode == 0 or wait_until_ready(place):
            return
        complaint = _complaints(place, before) or reason_in(done.stderr)
        if "in use" in complaint and "shared memory" in complaint and time.monotonic() < deadline:
            time.sleep(0.1)  # the last processes of a server that was killed are still ending
        elif "Address already in use" in complaint and time.monotonic() < deadline:
            port = _free_port(None)
        else:
            raise EmbeddedServerFailed("start", place.log_folder, complaint)


def _free_port(preferred: int | None) -> int:
    candidates = random.sample(_PORTS, 200)
    for port in [preferred, *candidates] if preferred else candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise EmbeddedServerUnavailable(f"200 ports of 127.0.0.1 between {_PORTS.start} and {_PORTS.stop} are all taken")


def _socket_folder(place: Place, account: Account) -> Path:
    """The folder of the Unix socket: in the data folder unless its path is too long or cannot be configured."""
    folder = place.data_dir / "socket"
    too_long = len(os.fsencode(folder / f".s.PGSQL.{_PORTS.stop}")) > _LONGEST_SOCKET_PATH
    if too_long or any(character in str(folder) for character in ",'"):
        remembered = read_state(place).socket_folder
        if remembered and remembered != str(folder) and _belongs_to(Path(remembered), account):
            return Path(remembered)
        folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="prescore-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    if account.owner is not None:
        os.chown(folder, *account.owner)
    return folder


def _belongs_to(folder: Path, account: Account) -> bool:
    """False also for a link: the temporary folder is everybody's."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid


def _write_configuration(place: Place, recipe: Recipe, account: Account, port: int, folder: Path) -> None:
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
    write_file(place.cluster / "prescore.conf", text, mode=0o600, owner=account.owner)


def _shared_memory() -> dict[str, str]:
    """Containers have 64 MB of /dev/shm by default, too little for a parallel hash join.

    System V memory has no such limit.
    """
    try:
        found = os.statvfs("/dev/shm")
    except OSError:
        return {}
    return {"dynamic_shared_memory_type": "sysv"} if found.f_blocks * found.f_frsize < 2**28 else {}


def _log_sizes(place: Place) -> dict[Path, int]:
    logs = [place.start_log, *place.log_folder.glob("*.log")]
    return {path: path.stat().st_size for path in logs if path.exists()}


def _complaints(place: Place, before: Mapping[Path, int]) -> str:
    """What the server wrote about why it did not start; no client was connected, so it holds no data."""
    written: list[str] = []
    for path, size in _log_sizes(place).items():
        with path.open("rb") as stream:
            # A file that a new weekday emptied is read from its beginning.
            stream.seek(before.get(path, 0) if size >= before.get(path, 0) else 0)
            written += stream.read().decode(errors="replace").splitlines()
    return complaints_in("\n".join(line.split("] ")[-1] for line in written))
