"""What each check asks is told for every check that there is, and a word that somebody types finds it."""

from __future__ import annotations

import pytest

from tasks.checks import CHECKS
from tasks.questions import QUESTIONS, matching, nearest, question_of


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_every_check_is_told_with_its_code(check: object) -> None:
    told = question_of(check.id)  # type: ignore[attr-defined]
    assert told is not None
    assert told.code == check.code  # type: ignore[attr-defined]


def test_every_question_ends_as_one_and_says_why_and_what_to_do() -> None:
    assert len({question.check_id for question in QUESTIONS}) == len(QUESTIONS)
    for told in QUESTIONS:
        assert told.question.endswith("?"), told.check_id
        assert told.why.endswith("."), told.check_id
        assert told.remedy.endswith("."), told.check_id


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("source.age", ["source.age"]),
        ("d1", ["drift.input", "drift.inputs"]),
        ("R4", ["rows.torn", "rows.skipped"]),
        ("model.*", ["model.age", "model.identity", "model.environment", "model.golden", "model.sentinels"]),
        ("source.aeg", []),
        ("new.check", ["new.check"]),
    ],
)
def test_a_check_is_found_by_its_id_its_code_or_a_glob(word: str, found: list[str]) -> None:
    assert matching(word, also=["new.check"]) == found


def test_an_unknown_word_gets_the_nearest_names() -> None:
    assert nearest("source.aeg")[0] == "source.age"
    assert "drift.step" in nearest("step")
    assert nearest("zzz") == []
