"""What `prescore serve` refuses before anything is started, and what it hands to its children."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from flows.serve import hold_folder, read_plan, require_answer, require_free, serve
from tasks.errors import NothingToServe, PortTaken, PrefectUnreachable, ServedAlready
from tasks.settings import Settings
from tests.unit.test_deployments import settings, write


def test_a_second_serve_on_the_same_data_folder_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    refused = pytest.raises(ServedAlready, match=f"by process {os.getpid()} in ")
    with hold_folder(tmp_path / "prefect"), refused, hold_folder(tmp_path / "prefect"):
        pass
    with hold_folder(tmp_path / "prefect") as home:
        assert home.stat().st_mode & 0o777 == 0o700


def test_a_port_that_is_taken_is_refused_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"--port.*PREFECT_API_URL=http://127\.0\.0\.1:{port}/api"):
            require_free(port)
    require_free(port)


def test_a_server_that_does_not_answer_is_refused() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        with pytest.raises(PrefectUnreachable, match="Connection refused"):
            require_answer(f"http://127.0.0.1:{deaf.getsockname()[1]}/api")


def test_broken_folders_alone_are_nothing_to_serve_and_each_is_told(tmp_path: Path) -> None:
    write(tmp_path, "torn", "[entity]\n")
    told: list[str] = []

    with pytest.raises(NothingToServe):
        read_plan(settings(tmp_path), told.append)

    assert "torn/pipeline.toml [entity] key" in told[0]


def test_serving_without_a_folder_of_pipelines_leaves_the_data_folder_free(tmp_path: Path) -> None:
    nowhere = Settings(database_url=None, pipelines_dir=tmp_path, data_dir=tmp_path / "data")
    for _ in range(2):
        with pytest.raises(NothingToServe):
            serve(nowhere, port=1, limit=1, told=lambda *_: None, tell=lambda _: None)
