"""What readers were served when, from made-up publications."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from tasks.timeline import Publication, spans, time_in_states

AT = datetime(2026, 3, 1, 3, tzinfo=UTC)
HOUR = timedelta(hours=1)


def published(generation_id: int, at: datetime) -> Publication:
    return Publication(
        generation_id=generation_id,
        run_id=generation_id,
        published_at=at,
        as_of=at,
        data_as_of=at,
        aging_at=at + 26 * HOUR,
        stale_at=at + 36 * HOUR,
        expires_at=at + 108 * HOUR,
        model_aging_at=at + 1000 * HOUR,
        model_stale_at=at + 2000 * HOUR,
        verdict="pass",
    )


def seen(*publications: Publication, until: datetime, since: datetime = AT) -> list[tuple[str, float]]:
    return [(span.state, span.length / HOUR) for span in spans(publications, since, until)]


def test_a_publication_ages_at_its_limits_until_the_next_one() -> None:
    first, second = published(1, AT), published(2, AT + 40 * HOUR)

    assert seen(first, second, until=AT + 50 * HOUR) == [("fresh", 26), ("aging", 10), ("stale", 4), ("fresh", 10)]
    assert seen(first, until=AT + 120 * HOUR)[-2:] == [("stale", 72), ("expired", 12)]


def test_nothing_is_served_before_the_first_publication() -> None:
    assert seen(published(1, AT), since=AT - 3 * HOUR, until=AT + HOUR) == [("missing", 3), ("fresh", 1)]
    assert seen(since=AT, until=AT + HOUR) == [("missing", 1)]


def test_a_rollback_lets_the_publication_before_be_served_again_at_its_own_age() -> None:
    undone = replace(published(2, AT + 24 * HOUR), undone_at=AT + 30 * HOUR)

    assert seen(published(1, AT), undone, until=AT + 40 * HOUR) == [
        ("fresh", 24),
        ("fresh", 6),
        ("aging", 6),
        ("stale", 4),
    ]


def test_flags_the_age_of_the_model_and_quarantines_change_the_state() -> None:
    flagged = replace(published(1, AT), verdict="warn")
    old_model = replace(published(1, AT), model_aging_at=AT - HOUR, model_stale_at=AT + 2 * HOUR)
    bad = replace(published(1, AT), quarantined_at=AT + 5 * HOUR)

    assert seen(flagged, until=AT + 30 * HOUR) == [("aging", 30)]
    assert seen(old_model, until=AT + 30 * HOUR) == [("aging", 2), ("stale", 28)]
    assert seen(bad, until=AT + 6 * HOUR) == [("fresh", 5), ("quarantined", 1)]


def test_lengths_of_states_add_up_to_the_whole_stretch() -> None:
    publications = [published(n, AT + n * 30 * HOUR) for n in range(1, 200)]
    found = spans(publications, AT, AT + 7000 * HOUR)

    lengths = time_in_states(found)
    assert sum(lengths.values(), timedelta(0)) == 7000 * HOUR
    assert lengths["missing"] == 30 * HOUR
    assert lengths["aging"] == 198 * 4 * HOUR + 10 * HOUR
    assert all(one.until == other.since for one, other in pairwise(found))
