"""deployments/compose.yaml, the Dockerfile and the units of systemd: valid, and in step with what prescore and Prefect read."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import pytest
import typer
import yaml

from flows.cli import app
from flows.deploy import POOL_TYPE
from flows.entrypoint import SECRETS, with_secrets
from tasks.errors import UsageError
from tests.readme import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = re.sub(r"\\\n", " ", (DEPLOYMENTS / "Dockerfile").read_text())
UNITS = sorted((DEPLOYMENTS / "systemd").iterdir())
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
#: Variables of the image of PostgreSQL, and of nobody else.
OF_POSTGRES = {"POSTGRES_PASSWORD_FILE"}


def instructions(name: str) -> list[str]:
    """Return the arguments of an instruction of the Dockerfile, in order."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def named_variables() -> dict[str, str]:
    """Return every variable that a container or unit is given, with its value."""
    found: dict[str, str] = {}
    for service in SERVICES.values():
        found |= {name: str(value) for name, value in service.get("environment", {}).items()}
    for unit in UNITS:
        for line in re.findall(r"^Environment=(.*)$", unit.read_text(), re.MULTILINE):
            found |= dict(pair.split("=", 1) for pair in line.split())
    for line in instructions("ENV"):
        found |= dict(pair.split("=", 1) for pair in line.split())
    return found


def read_by_prescore() -> set[str]:
    """Return the variables that tasks/settings.py asks for."""
    tree = ast.parse((REPOSITORY / "tasks" / "settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return {str(call.args[0].value) for call in calls if call.args and isinstance(call.args[0], ast.Constant)}


def test_compose_is_valid_by_the_schema_of_its_specification() -> None:
    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())

    jsonschema.Draft202012Validator(schema).validate(COMPOSE)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(COMPOSE | {"services": {"worker": {"imge": "x"}}})


def test_every_variable_is_one_that_prescore_or_prefect_reads() -> None:
    from prefect.settings.legacy import _get_valid_setting_names
    from prefect.settings.models.root import Settings

    prefects = _get_valid_setting_names(Settings) | {f"{name}_FILE" for name in SECRETS}
    assert prefects.issuperset(SECRETS)
    known = read_by_prescore() | prefects | OF_POSTGRES
    # Read by everything that has OpenMP or speaks to Prefect's telemetry, and by Python itself.
    known |= {"OMP_WAIT_POLICY", "DO_NOT_TRACK", "PATH", "PYTHONUNBUFFERED"}

    assert set(named_variables()) - known == set()


def test_no_secret_is_written_down() -> None:
    for name, value in named_variables().items():
        assert not re.search(r"://[^/]*:[^/]*@", value), name
        assert name not in SECRETS, name
        assert name.endswith("_FILE") or not re.search("PASSWORD|AUTH_STRING|DATABASE_URL|SOURCE_URL", name), name
    written = (DEPLOYMENTS / "create_secrets.sh").read_text()
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert f"keep {name} " in written
    for name, service in SERVICES.items():
        used = {Path(value).name for value in service.get("environment", {}).values() if "/run/secrets/" in str(value)}
        assert used == set(service.get("secrets", [])), name
    for unit in UNITS:
        credentials = re.findall(r"^LoadCredential=(\w+):/etc/prescore/(\w+)$", unit.read_text(), re.MULTILINE)
        assert {name for name, _ in credentials} == set(re.findall(r"=%d/(\w+)", unit.read_text()))
        assert all(f"keep {file} " in written for _, file in credentials)


def test_containers_are_small_targets_that_come_back_and_say_how_they_are() -> None:
    for name, service in SERVICES.items():
        once = service["restart"].startswith("on-failure")
        assert once or service["restart"] == "unless-stopped", name
        assert once or service["healthcheck"]["test"][0] == "CMD", name
        assert re.fullmatch(r"(postgres:\d+\.\d+-\w+|prescore:\$\{PRESCORE_VERSION:-[\d.]+\})", service["image"]), name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"]), name
        for other, wanted in service.get("depends_on", {}).items():
            ends = SERVICES[other]["restart"].startswith("on-failure")
            assert wanted["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
    assert SERVICES["database"]["user"] == "postgres"
    # What is not PostgreSQL runs as the user of our image, which is not root.
    assert all("user" not in service for name, service in SERVICES.items() if name != "database")
    assert instructions("USER")[-1] == "10001:10001"
    assert DOCKERFILE.index("USER 10001") < DOCKERFILE.index("ENTRYPOINT")


def test_images_and_files_are_of_this_version_of_prescore() -> None:
    assert {f"${{PRESCORE_VERSION:-{PROJECT['version']}}}"} == {
        service["image"].partition(":")[2] for service in SERVICES.values() if service["image"].startswith("prescore:")
    }
    assert f"--tag prescore:{PROJECT['version']}" in DOCKERFILE
    assert f"prescore:{PROJECT['version']} ." in (DEPLOYMENTS / "compose.yaml").read_text()
    minimum = PROJECT["requires-python"].removeprefix(">=")
    assert f"ARG PYTHON={minimum}-slim" in DOCKERFILE


def test_the_image_is_made_of_everything_that_the_wheel_is_made_of() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = [words.split() for words in instructions("COPY") if not words.startswith("--from")]
    sources = {source for words in copied for source in words[:-1]}
    assert {*wheel["packages"], "pyproject.toml", PROJECT["readme"]} <= sources
    assert all((REPOSITORY / source).exists() for source in sources)
    sent = set(re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE))
    assert sent == sources
    assert json.loads(instructions("ENTRYPOINT")[0])[1:] == ["-m", "flows.entrypoint"]


def _started() -> list[str]:
    compose = [" ".join(service["command"]) for service in SERVICES.values() if "command" in service]
    lines = [line for unit in UNITS for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", unit.read_text(), re.MULTILINE)]
    entry = "/opt/prescore/bin/python -m flows.entrypoint "
    return [*compose, *(line.removeprefix(entry).removeprefix("/opt/prescore/bin/") for line in lines)]


@pytest.mark.parametrize("line", sorted(set(_started())))
def test_every_command_that_is_started_is_there_with_its_options(line: str) -> None:
    program, *words = line.split()
    options = {word for word in words if word.startswith("--")}
    if program == "prescore":
        command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
        known = {written for parameter in command.params for written in parameter.opts}
    else:
        assert program.removeprefix("/opt/prescore/bin/") == "prefect"
        import inspect

        from prefect.cli import server, worker

        function = {"server start": server.start, "worker start": worker.start}[" ".join(words[:2])]
        known = {f"--{name.strip('_').replace('_', '-')}" for name in inspect.signature(function).parameters}
        known |= {"--pool", "--type"}
        if words[0] == "worker":
            assert words[words.index("--type") + 1] == POOL_TYPE
    assert options <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # It looks for programs and users, too.
    for unit in UNITS:
        written = unit.read_text().replace("/opt/prescore/bin/", f"{Path(sys.executable).parent}/")
        (tmp_path / unit.name).write_text(re.sub(r"^User=.*$", "User=root", written, flags=re.MULTILINE))
    paths = [str(tmp_path / unit.name) for unit in UNITS]

    told = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)

    # What it says of other units of this machine is none of our business.
    assert [line for line in (told.stdout + told.stderr).splitlines() if "prescore" in line] == []
    assert told.returncode == 0


def test_the_entrypoint_hands_over_what_files_hold_and_shows_nothing_of_it(tmp_path: Path) -> None:
    secret = tmp_path / "prefect_auth"
    secret.write_text("operator:hush\n")
    given = {"PREFECT_API_AUTH_STRING_FILE": str(secret), "PRESCORE_DATABASE_URL_FILE": "/nowhere", "HOME": "/"}

    assert with_secrets(given) == {
        "PREFECT_API_AUTH_STRING": "operator:hush",
        "PRESCORE_DATABASE_URL_FILE": "/nowhere",  # prescore reads it itself
        "HOME": "/",
    }
    secret.write_text("operator: hush")
    with pytest.raises(UsageError, match="which holds more than one word") as refused:
        with_secrets(given)
    assert "hush" not in str(refused.value)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.entrypoint", *words]
        return subprocess.run(command, env=given, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    told = call("true")
    assert (told.returncode, "prescore: PREFECT_API_AUTH_STRING_FILE names" in told.stderr) == (2, True)
    secret.write_text("operator:hush")
    assert call(shutil.which("sh") or "sh", "-c", 'echo "$PREFECT_API_AUTH_STRING"; exit 7').stdout == "operator:hush\n"
    assert (call("no-such-command").returncode, call().returncode) == (2, 2)
