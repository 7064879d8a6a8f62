"""What a Prefect server is to know of pipelines; without Prefect."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.deployments import Deployment, plan
from tasks.errors import PipelineInvalid
from tasks.settings import Settings
from tests.factories import FEATURES_SQL, PIPELINE_TOML
from tests.readme import REPOSITORY


def settings(folder: Path) -> Settings:
    return Settings(database_url=None, pipelines_dir=folder, data_dir=folder / "data")


def write(folder: Path, name: str, toml: str) -> None:
    (folder / name).mkdir()
    (folder / name / "pipeline.toml").write_text(toml)
    (folder / name / "features.sql").write_text(FEATURES_SQL)


def declared(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment as prefect.yaml writes it."""
    return {
        "name": deployment.pipeline,
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "tags": ["prescore", deployment.flow],
        "parameters": deployment.parameters,
        "work_pool": {"name": "prescore", "job_variables": {}},
        "schedules": [
            {"slug": each.slug, "cron": each.cron, "timezone": each.timezone, "parameters": each.parameters}
            for each in deployment.schedules
        ],
        "triggers": [automation.spec for automation in deployment.automations],
    }


def test_prefect_yaml_says_what_the_shipped_pipelines_say() -> None:
    written = yaml.safe_load((REPOSITORY / "deployments" / "prefect.yaml").read_text())
    planned = plan(settings(REPOSITORY / "deployments" / "pipelines"))

    assert written["deployments"] == [declared(deployment) for deployment in planned.deployments]
    assert written["pull"] == []  # nothing: left out, Prefect would pull the code from where this checkout came from


def test_every_expression_of_a_pipeline_is_a_schedule_with_a_name_of_its_own(tmp_path: Path) -> None:
    schedule = (
        '[schedule]\ntimezone = "Europe/Berlin"\nfull = ["0 3 * * *", "0 12 * * 6"]\nincremental = "*/15 * * * *"\n'
    )
    write(tmp_path, "items", PIPELINE_TOML.replace('changes = "changes.sql"\n', "") + schedule)

    (deployment,) = plan(settings(tmp_path)).deployments

    assert deployment.name == "score/items"
    assert [(each.slug, each.cron, dict(each.parameters)) for each in deployment.schedules] == [
        ("full-1", "0 3 * * *", {"params": {"pipeline": "items", "full": True}}),
        ("full-2", "0 12 * * 6", {"params": {"pipeline": "items", "full": True}}),
        ("incremental", "*/15 * * * *", {"params": {"pipeline": "items"}}),
    ]
    after = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert deployment.schedules[0].next_tick(after) == datetime(2026, 7, 2, 1, tzinfo=UTC)


def test_a_broken_folder_does_not_keep_the_others_from_their_deployments(tmp_path: Path) -> None:
    write(tmp_path, "items", PIPELINE_TOML.replace('changes = "changes.sql"\n', ""))
    write(tmp_path, "torn", "[entity]\n")

    planned = plan(settings(tmp_path))

    assert planned.pipelines == ["items"]
    assert [error.pipeline for error in planned.broken] == ["torn"]
    with pytest.raises(PipelineInvalid):
        plan(settings(tmp_path), "torn")
