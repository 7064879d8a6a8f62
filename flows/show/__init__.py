"""What the commands print: tables for people on stdout, one JSON object for programs, progress on stderr."""

from flows.show.backfills import show_backfill, show_instant
from flows.show.deployments import show_deployed, show_served
from flows.show.entities import show_features, show_preview
from flows.show.erasures import show_erasure, show_readmission
from flows.show.explanations import show_checks_explained, show_explanation
from flows.show.grants import show_granted
from flows.show.health import show_health
from flows.show.models import show_models, show_registered, show_training, show_version, show_went_back
from flows.show.parts import as_program, print_json, say
from flows.show.pipelines import show_checks, show_created
from flows.show.quarantine import show_quarantine, show_release
from flows.show.replays import show_replay
from flows.show.runs import RunProgress, show_cancellation, show_lookup, show_rollback, show_run, show_seen
from flows.show.symptoms import show_diagnosis

__all__ = [
    "RunProgress",
    "as_program",
    "print_json",
    "say",
    "show_backfill",
    "show_cancellation",
    "show_checks",
    "show_checks_explained",
    "show_created",
    "show_deployed",
    "show_diagnosis",
    "show_erasure",
    "show_explanation",
    "show_features",
    "show_granted",
    "show_health",
    "show_instant",
    "show_lookup",
    "show_models",
    "show_preview",
    "show_quarantine",
    "show_readmission",
    "show_registered",
    "show_release",
    "show_replay",
    "show_rollback",
    "show_run",
    "show_seen",
    "show_served",
    "show_training",
    "show_version",
    "show_went_back",
]
