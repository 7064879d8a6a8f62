"""postmaster.pid: which process serves a cluster, and whether it really does."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tasks.embedded.folder import Place, read_state, write_file
from tasks.embedded.programs import Account
from tasks.errors import EmbeddedServerFailed

# Crash recovery of a large database takes minutes.
START_SECONDS = 300
# A kill(2) of this process id finds nobody: it is above every system's limit.
_NOBODY = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Postmaster:
    """The contents of postmaster.pid, which the server writes line by line while it starts."""

    pid: int
    port: int | None
    socket_folder: str | None
    ready: bool


def read_postmaster(place: Place) -> Postmaster | None:
    """Return what the server wrote about itself; None when there is no file or nothing in it yet."""
    try:
        lines = [*place.postmaster.read_text().splitlines(), *[""] * 8]
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not lines[0].lstrip("-").isdigit():
        return None
    return Postmaster(
        # A server in single-user mode writes its id as a negative number.
        pid=abs(int(lines[0])),
        port=int(lines[3]) if lines[3].isdigit() else None,
        socket_folder=lines[4] or None,
        # A folder that was copied while its server ran names the original: that server is not this folder's.
        ready=lines[7].strip() == "ready" and lines[1] == str(place.cluster),
    )


def listens(postmaster: Postmaster) -> bool:
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


def is_alive(postmaster: Postmaster, place: Place) -> bool:
    """True when the server that wrote postmaster.pid still runs, ready or not, even if its socket was removed."""
    return listens(postmaster) or _is_postmaster(postmaster.pid, place.cluster)


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


def wait_until_ready(place: Place) -> bool:
    """Wait for a server that another process set going; False when there is none, or when it ends instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        postmaster = read_postmaster(place)
        if postmaster is None or not is_alive(postmaster, place):
            return False
        if postmaster.ready:
            return True
        time.sleep(0.02)
    raise EmbeddedServerFailed("start", place.log_folder, f"it is not ready after {START_SECONDS} s")


def release_process_ids(place: Place, account: Account) -> None:
    """Make the lock files of a dead server harmless when their number is the id of somebody else by now.

    Postgres would refuse to start as long as a process of the same user has that id, be it a zombie. Called when no
    server of the cluster runs.
    """
    if _is_misleading(place.postmaster, place):
        _, *others = place.postmaster.read_text().splitlines()
        # The rest stays: by it Postgres notices that processes of the dead server still use its memory.
        write_file(place.postmaster, "\n".join([str(_NOBODY), *others]) + "\n", mode=0o600, owner=account.owner)
    folder = read_state(place).socket_folder
    for lock in Path(folder).glob(".s.PGSQL.*.lock") if folder else []:
        if _is_misleading(lock, place):
            lock.unlink()


def _is_misleading(lock_file: Path, place: Place) -> bool:
    pid = _process_id(lock_file)
    return pid is not None and _exists(pid) and not _is_postmaster(pid, place.cluster)


def _process_id(lock_file: Path) -> int | None:
    try:
        first = lock_file.read_text().partition("\n")[0].strip().lstrip("-")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return int(first) if first.isdigit() else None


def _exists(pid: int) -> bool:
    """True for a zombie too, as for Postgres."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
