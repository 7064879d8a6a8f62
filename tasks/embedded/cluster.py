"""The database files: created complete or not at all, never removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tasks.embedded.folder import ROLE, Place, Recipe, read_password, write_file, write_new_password
from tasks.embedded.postmaster import release_process_ids
from tasks.embedded.programs import Account, major_version, reason_in, run
from tasks.errors import ClusterIncomplete, ClusterVersionDiffers, EmbeddedServerFailed


def clean_leftovers(place: Place) -> None:
    """Remove what commands left that were killed half-way; none of it was ever in use."""
    for pattern in ("incomplete-*", ".password.*", ".server.json.*"):
        for path in place.data_dir.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def create_cluster(place: Place, programs: Path, recipe: Recipe, *, account: Account, lock: int) -> None:
    """Create the cluster unless it is there, and a password where one is missing."""
    cluster = place.cluster
    if (cluster / "PG_VERSION").exists() and (cluster / "global" / "pg_control").exists():
        _require_same_version(cluster, programs)
        if read_password(place) is None:
            release_process_ids(place, account)
            _renew_password(place, programs, account, lock)
        return
    if cluster.exists() and (not cluster.is_dir() or any(cluster.iterdir())):
        raise ClusterIncomplete(cluster)
    password = read_password(place)
    if password is None:
        password = write_new_password(place)
    staging = Path(tempfile.mkdtemp(dir=place.data_dir, prefix="incomplete-"))
    if account.owner is not None:
        os.chown(staging, *account.owner)
    try:
        _initialise(staging, password, programs, recipe, account=account, lock=lock)
        if cluster.exists():
            cluster.rmdir()
        # From here on it counts as complete.
        os.rename(staging / "cluster", cluster)
        _force_to_disk(place.data_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_same_version(cluster: Path, programs: Path) -> None:
    made_by, needed = (cluster / "PG_VERSION").read_text().strip(), str(major_version(programs))
    if made_by != needed:
        raise ClusterVersionDiffers(cluster, made_by, needed)


def _initialise(staging: Path, password: str, programs: Path, recipe: Recipe, *, account: Account, lock: int) -> None:
    cluster, password_file = staging / "cluster", staging / "password"
    write_file(password_file, password + "\n", mode=0o600, owner=account.owner)
    command = [programs / "initdb", "-D", cluster, "-U", ROLE, "--encoding=UTF8", "--locale=C", "--no-instructions"]
    # Other users of this machine reach both the socket and loopback: everybody needs the password.
    command += [f"--pwfile={password_file}", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
    if major_version(programs) >= 17:
        # Unicode letters without the C library's collations, which change with the system and corrupt indexes.
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not recipe.durable:
        command += ["--no-sync"]
    done = run(command, account=account, cwd=staging, holding=lock)
    if done.returncode != 0:
        raise EmbeddedServerFailed("create its files", None, reason_in(done.stderr))
    configuration = cluster / "postgresql.conf"
    included = configuration.read_text() + "\n# Written by prescore at every start.\ninclude = 'prescore.conf'\n"
    write_file(configuration, included, mode=0o600, owner=account.owner)
    write_file(cluster / "prescore.conf", "", mode=0o600, owner=account.owner)


def _force_to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _renew_password(place: Place, programs: Path, account: Account, lock: int) -> None:
    """Give the role a new password while the server is down: whoever owns the files needs no old one."""
    password = write_new_password(place)
    command = [programs / "postgres", "--single", "-D", place.cluster, "postgres"]
    change = f"ALTER ROLE {ROLE} PASSWORD '{password}'\n"
    done = run(command, account=account, cwd=place.cluster, stdin=change, holding=lock)
    if done.returncode != 0:
        place.password.unlink()
        raise EmbeddedServerFailed("renew the password", place.log_folder, reason_in(done.stderr))
