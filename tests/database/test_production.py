"""What deployments/ does to a new PostgreSQL: secrets made once, two databases, roles that are no superusers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from tasks.embedded import package_programs
from tests.conftest import execute, psql_url
from tests.readme import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    return subprocess.run(["sh", *words], env=environment, capture_output=True, text=True, check=False)


def test_a_new_cluster_gets_both_databases_with_the_passwords_of_the_secrets(server_url: str, tmp_path: Path) -> None:
    there, end = make_url(server_url), uuid4().hex[:8]
    place, folder = f"{there.host}:{there.port}", tmp_path / "secrets"

    made = run(str(DEPLOYMENTS / "create_secrets.sh"), str(folder), place)
    names = ("postgres_password", "prefect_auth", "prefect_database_url", "prescore_database_url")
    assert (made.returncode, made.stdout, sorted(file.name for file in folder.iterdir())) == (0, "", sorted(names))
    assert (folder.stat().st_mode & 0o777, (folder / "prefect_auth").stat().st_mode & 0o777) == (0o700, 0o444)
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert len({text.strip() for text in before.values()}) == len(names)
    again = run(str(DEPLOYMENTS / "create_secrets.sh"), str(folder), place)
    assert again.stderr.count("is there already: left as it is") == len(names)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before

    # Names of this test's own: roles belong to the whole server.
    for file in ("prefect_database_url", "prescore_database_url"):
        (folder / file).chmod(0o600)
        renamed = before[file].replace("prefect:", f"prefect_{end}:").replace("runner:", f"runner_{end}:")
        (folder / file).write_text(
            renamed.replace("/prefect\n", f"/prefect_{end}\n").replace("/predictions\n", f"/predictions_{end}\n")
        )
    files = {
        "PRESCORE_DATABASE_URL_FILE": str(folder / "prescore_database_url"),
        "PREFECT_API_DATABASE_CONNECTION_URL_FILE": str(folder / "prefect_database_url"),
    }
    server = {"PGHOST": str(there.host), "PGPORT": str(there.port), "PGPASSWORD": str(there.password)}
    server |= {"POSTGRES_USER": str(there.username), "PATH": f"{package_programs()}:{os.environ['PATH']}"}
    script = str(DEPLOYMENTS / "postgres" / "create_databases.sh")
    try:
        told = run(script, **files, **server)
        assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
        for file, role in (
            ("prescore_database_url", f"prescore_runner_{end}"),
            ("prefect_database_url", f"prefect_{end}"),
        ):
            with (
                psycopg2.connect(psql_url((folder / file).read_text().strip())) as connection,
                connection.cursor() as cursor,
            ):
                cursor.execute(
                    "SELECT r.rolname, r.rolsuper, r.rolcreaterole, pg_has_role('pg_read_all_stats', 'member'), "
                    "pg_catalog.pg_get_userbyid(d.datdba) FROM pg_roles AS r, pg_database AS d "
                    "WHERE r.rolname = current_user AND d.datname = current_database()"
                )
                assert cursor.fetchone() == (role, False, False, file.startswith("prescore"), role)
            connection.close()
        # Neither may enter the other's database.
        other = make_url(psql_url((folder / "prefect_database_url").read_text().strip())).set(
            database=f"predictions_{end}"
        )
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(other.render_as_string(hide_password=False))
        # An address with characters that would have to be escaped is refused before anything is made.
        (folder / "prescore_database_url").write_text(f"postgresql://x:o'clock@{place}/y\n")
        refused = run(script, **files, **server)
        assert refused.returncode == 1
        assert "holds no address as create_secrets.sh writes it" in refused.stderr
        assert "clock" not in refused.stderr
    finally:
        for name in (f"predictions_{end}", f"prefect_{end}"):
            execute(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        for name in (f"prescore_runner_{end}", f"prefect_{end}"):
            execute(server_url, f"DROP ROLE IF EXISTS {name}")
