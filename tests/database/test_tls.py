"""TLS: what an address says of it reaches both drivers, and a server that is not the one meant is refused by both."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tasks import embedded, migrations
from tasks.database import DatabaseUnreachable, connect, raw_execute
from tasks.embedded.programs import server_account
from tasks.runs import Status
from tasks.transport import open_session
from tests.conftest import psql_url
from tests.factories import make_model, make_pipeline, make_world
from tests.servers import all_servers, short_lived

pytestmark = pytest.mark.slow

_IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
HBA = """
local     all all                     scram-sha-256
hostnossl all all       127.0.0.1/32  reject
hostssl   all certified 127.0.0.1/32  cert
hostssl   all all       127.0.0.1/32  scram-sha-256
"""
NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """A CA of a test's own, and what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self._key.public_key(), is_ca=True)
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Write certificate and key for a name; for localhost also its address."""
        key = ec.generate_private_key(ec.SECP256R1())
        files = self.folder / f"{self.name}-{name}.crt", self.folder / f"{self.name}-{name}.key"
        files[0].write_bytes(self._sign(name, key.public_key()).public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files[1].chmod(0o600)
        return files

    def _sign(self, name: str, public: ec.EllipticCurvePublicKey, *, is_ca: bool = False) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        addresses: list[x509.GeneralName] = [x509.DNSName(name)]
        if name == "localhost":
            addresses.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=1))
            .not_valid_after(NOW + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[str]:
    """A server of its own that takes nobody without TLS; the embedded one is built without it."""
    folder = short_lived() / f"prescore-tls-{time.time_ns()}"
    folder.mkdir(mode=0o755)
    built = [found for found in all_servers() if found.binaries is not None]
    try:
        for found in built:
            recipe = embedded.Recipe(binaries=found.binaries, settings={"fsync": "off"}, durable=False)
            url = psql_url(embedded.ensure_running(folder / str(found.major), recipe=recipe), "postgres")
            if _with_tls(url, folder / str(found.major) / "cluster", authority):
                yield url
                return
        pytest.skip("no PostgreSQL with TLS is installed beside the embedded one")
    finally:
        for found in built:
            embedded.stop(folder / str(found.major))
        shutil.rmtree(folder, ignore_errors=True)


def _with_tls(url: str, cluster: Path, authority: Authority) -> bool:
    certificate, key = authority.issue("localhost")
    owner = server_account().owner
    for source, name in ((certificate, "tls.crt"), (key, "tls.key"), (authority.file, "tls-ca.crt")):
        target = cluster / name
        shutil.copy(source, target)
        target.chmod(0o600)
        if owner is not None:
            shutil.chown(target, *owner)
    (cluster / "pg_hba.conf").write_text(HBA, encoding="utf-8")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE certified LOGIN SUPERUSER")
        try:
            for name, value in (("cert_file", "tls.crt"), ("key_file", "tls.key"), ("ca_file", "tls-ca.crt")):
                cursor.execute(f"ALTER SYSTEM SET ssl_{name} = '{value}'")
            cursor.execute("ALTER SYSTEM SET ssl = on")
        except psycopg2.Error:
            return False
        cursor.execute("SELECT pg_reload_conf()")
    connection.close()
    return any(_takes_tls(url) for _ in range(100))


def _takes_tls(url: str) -> bool:
    try:
        psycopg2.connect(f"{url}?sslmode=require").close()
    except psycopg2.OperationalError:
        time.sleep(0.05)  # the postmaster reads its settings when it comes to it
        return False
    return True


def control(url: str) -> bool:
    """Whether the control path speaks TLS."""
    with connect(url) as connection:
        return bool(raw_execute(connection, _IS_ENCRYPTED).fetchone()[0])


def data(url: str) -> bool:
    """Whether the data path speaks TLS."""
    with open_session(url) as session:
        return bool(session.table(_IS_ENCRYPTED).column(0)[0].as_py())


DRIVERS: tuple[Callable[[str], bool], ...] = (control, data)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_is_believed_only_with_a_certificate_of_the_right_authority_and_name(
    server: str, authority: Authority, tmp_path: Path, driver: Callable[[str], bool]
) -> None:
    password = server.split(":")[2].split("@", maxsplit=1)[0]
    assert driver(f"{server}?sslmode=verify-full&sslrootcert={authority.file}")
    assert driver(f"{server}?sslmode=verify-full&sslrootcert={authority.file}&target_session_attrs=read-write")
    other = Authority(tmp_path, "theirs").file
    for url, told in (
        (f"{server}?sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
        (f"{server}?sslmode=disable", "no encryption|rejects connection"),
        (f"{server}?sslmode=verify-full&sslrootcert={tmp_path}/none.crt", "does not exist|provide the file"),
        (f"{server}?sslmode=sometimes", "sslmode"),
        (f"{server}?sslmode=require&target_session_attrs=standby", "standby"),
    ):
        with pytest.raises(DatabaseUnreachable, match=told) as refusal:
            driver(url)
        assert password not in str(refusal.value)
    # By another name than the certificate has.
    by_name = server.replace("127.0.0.1", "elsewhere.example.org")
    with pytest.raises(DatabaseUnreachable, match="does not match host name"):
        driver(f"{by_name}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={authority.file}")
    # One of several hosts that answers.
    host, port = server.split("@")[1].split("/", maxsplit=1)[0].split(":")
    several = server.replace(f"{host}:{port}", "") + f"?host={host},{host}&port=1,{port}&sslmode=require"
    assert driver(several)


@pytest.mark.parametrize("driver", DRIVERS)
def test_certificates_of_clients_and_files_of_libpq_take_the_place_of_a_password(
    server: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Callable[[str], bool]
) -> None:
    role, password = server.removeprefix("postgresql://").split("@")[0].split(":")
    certificate, key = authority.issue("certified")
    bare = server.replace(f":{password}@", "@")
    trusted = f"sslmode=verify-full&sslrootcert={authority.file}"
    as_certified = bare.replace(role, "certified", 1)
    assert driver(f"{as_certified}?{trusted}&sslcert={certificate}&sslkey={key}")
    with pytest.raises(DatabaseUnreachable, match="certificate"):
        driver(f"{as_certified}?{trusted}")
    with pytest.raises(DatabaseUnreachable, match="password"):
        driver(f"{bare}?{trusted}")
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{password}\n", encoding="utf-8")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert driver(f"{bare}?{trusted}")
    host, port = server.split("@")[1].split("/", maxsplit=1)[0].split(":")
    services = tmp_path / "pg_service.conf"
    services.write_text(
        f"[shop]\nhost={host}\nport={port}\nuser={role}\ndbname=postgres\nsslmode=verify-full\nsslrootcert={authority.file}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert driver("postgresql:///?service=shop")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(authority.file))
    assert driver(bare)
    monkeypatch.setenv("PGSSLROOTCERT", str(Authority(tmp_path, "theirs").file))
    with pytest.raises(DatabaseUnreachable, match="certificate verify failed"):
        driver(bare)


def test_a_run_makes_every_connection_by_tls(server: str, authority: Authority, tmp_path: Path) -> None:
    url = f"{server}?sslmode=verify-full&sslrootcert={authority.file}"
    migrations.apply(url)
    world = make_world(url, tmp_path, rows=300)
    make_model(world, make_pipeline(world, toml=_WORKERS))
    assert world.score(full=True).status is Status.PUBLISHED  # the server takes nobody without TLS


_WORKERS = """
[entity]
key = ["id"]
query = "SELECT id FROM public.items"
[features]
query = "features.sql"
changes = "changes.sql"
[predictions]
p = { method = "predict_proba", class = "1" }
[execution]
workers = 2
shards = 2
"""
