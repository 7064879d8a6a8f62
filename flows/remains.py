"""What is left of a pipeline on a Prefect server once the database knows it no more."""

from __future__ import annotations

import os


def remaining_deployments(pipeline: str) -> list[str] | None:
    """Return the deployments that a Prefect server still has of a pipeline; None when no server is named or it does not answer.

    Prefect is imported only when PREFECT_API_URL names a server.
    """
    if not os.environ.get("PREFECT_API_URL"):
        return None
    from flows.deploy import open_client, tagged
    from tasks.errors import PrefectUnreachable

    try:
        with open_client() as client:
            return sorted(name for name, there in tagged(client) if there.name == pipeline)
    except PrefectUnreachable:
        return None
