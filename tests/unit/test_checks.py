"""The table of checks: ids and codes are stable, and a failure says what has to happen next."""

from __future__ import annotations

import re

from tasks.checks import CHECKS
from tasks.findings import CheckClass, Disposition, Followup
from tasks.waivers import GROUPS, NEVER


def test_ids_are_dotted_words_and_codes_a_letter_and_a_number() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", name)] == []
    assert [check.code for check in CHECKS if not re.fullmatch(r"[SMDPRT]\d", check.code)] == []


def test_a_failure_says_what_has_to_happen_next() -> None:
    followups = {check.id: check.followups for check in CHECKS}
    # The age of what is published follows from what other checks found, and they say what helps.
    assert [name for name, what in followups.items() if not what] == ["rows.age"]
    assert {name for name, what in followups.items() if Followup.RETRAIN in what} == {
        "model.age",
        "drift.inputs",
        "performance.metric",
    }
    assert followups["source.age"] == followups["population.size"] == {Followup.REFRESH_SOURCE}
    assert followups["logic"] == followups["rows.skipped"] == {Followup.RESCORE}


def test_what_means_that_predictions_cannot_be_right_may_not_be_waived() -> None:
    aborting = {check.id for check in CHECKS if check.on_fail is Disposition.ABORT}
    assert aborting - NEVER == {"model.environment"}, "which remembered rows can answer for"
    ids = {check.id for check in CHECKS}
    assert ids >= NEVER
    assert ids >= {name for group in GROUPS.values() for name in group}


def test_no_gauge_blocks_by_itself() -> None:
    assert {check.on_fail for check in CHECKS if check.class_ is CheckClass.GAUGE} == {Disposition.PUBLISH_FLAGGED}
