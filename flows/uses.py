"""Two more uses that the demo shows beside churn: segments of customers, and ten products for each of them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from rich.progress import Progress

from flows.score import RunSummary, score
from flows.train import train
from tasks.demo import ask
from tasks.errors import DemoStopped
from tasks.runs import Status
from tasks.settings import Settings
from tasks.telling import Teller
from tasks.training import TrainSummary

SEGMENTS, RECOMMENDATIONS = "segments", "recommendations"

BEHAVIOUR = """\
SELECT p.segment, count(*) AS customers, round(avg(p.distance)::numeric, 2) AS mean_distance,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY o.last_order) AS last_order,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY coalesce(o.orders, 0)) AS orders,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY coalesce(o.spent, 0)) AS spent,
       percentile_disc(0.5) WITHIN GROUP (ORDER BY coalesce(v.visits, 0)) AS visits
FROM predictions.segments_usable AS p
LEFT JOIN (
    SELECT customer_id, max(ordered_at)::date AS last_order,
           count(*) AS orders, sum(amount) AS spent
    FROM shop.orders
    GROUP BY customer_id
) AS o USING (customer_id)
LEFT JOIN (
    SELECT customer_id, count(*) AS visits
    FROM shop.visits
    WHERE visited_at > prescore.clock() - interval '90 days'
    GROUP BY customer_id
) AS v USING (customer_id)
GROUP BY p.segment
ORDER BY p.segment"""
PRODUCTS = """\
SELECT l.place, p.name, p.price, l.score, bought.times AS bought_before
FROM predictions.recommendations_for({}) AS r
CROSS JOIN unnest(r.products, r.scores) WITH ORDINALITY AS l (product_id, score, place)
JOIN shop.products AS p USING (product_id)
CROSS JOIN LATERAL (
    SELECT count(*) AS times
    FROM shop.orders AS o
    WHERE o.customer_id = r.customer_id AND o.product_id = l.product_id
) AS bought
ORDER BY l.place"""
# How many places of the list are compared from one day to the next.
COMPARED = 3


@dataclass(frozen=True, kw_only=True)
class Use:
    """A further pipeline of the demo."""

    trained: TrainSummary
    #: The run of the first day, over everybody.
    first: RunSummary
    #: What its query showed on the first day: the table of segments, or the products of one customer.
    shown: tuple[tuple[Any, ...], ...]
    #: The run of the second day, over what changed; None until then.
    second: RunSummary | None = None

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""
        return self.first.pipeline


def show_uses(tell: Teller, here: Settings, url: str, followed: int) -> tuple[Use, ...]:
    """Train and score the segments and the recommendations, and print what readers see of them."""
    tell.chapter("Two more uses of the same shop, as folders of their own")
    return _segments(tell, here, url), _recommendations(tell, here, url, followed)


def rescore_uses(tell: Teller, here: Settings, url: str, uses: tuple[Use, ...], followed: int) -> tuple[Use, ...]:
    """Score what changed over the day, and print how the list of the customer who is followed moved."""
    after = tuple(replace(use, second=score_and_show(tell, here, use.pipeline, full=False)) for use in uses)
    scored = [f"{run.pipeline} {run.scored:,} in {run.seconds:.1f} s" for use in after if (run := use.second)]
    tell.say(
        f"The other two uses follow in the same way: {', '.join(scored)}. To the recommendations only orders matter.",
        f"The head of the list of customer {followed}:",
    )
    before = next(use.shown for use in uses if use.pipeline == RECOMMENDATIONS)
    now = ask(url, PRODUCTS.format(followed)).rows
    rows = [(old[0], old[1], old[3], new[1], new[3]) for old, new in zip(before, now, strict=False)]
    tell.table(("place", "yesterday", "score", "today", "score"), rows[:COMPARED])
    return after


def score_and_show(tell: Teller, here: Settings, pipeline: str, *, full: bool) -> RunSummary:
    """Score a pipeline of the demo, with a bar on standard error.

    Raises
    ------
    DemoStopped
        When the run did not publish.
    """
    with tell.progress(f"score {pipeline}", 1) as bar:
        run = score(here, pipeline, full=full, watcher=_Bar(bar))
    if run.status is not Status.PUBLISHED:
        raise DemoStopped(run.message)
    return run


def _segments(tell: Teller, here: Settings, url: str) -> Use:
    trained, seconds = _train(tell, here, SEGMENTS)
    first = score_and_show(tell, here, SEGMENTS, full=True)
    shown = ask(url, BEHAVIOUR)
    tell.say(
        f"Segments: groups that k-means finds in the behaviour of {trained.rows_fitted:,} customers, without any label",
        f"(trained in {seconds:.1f} s, {first.scored:,} customers scored in {first.seconds:.1f} s). Each customer has a",
        "segment and a distance to its centre; small is typical. What the segments are, by medians (visits are",
        "those of 90 days):",
    )
    tell.sql(BEHAVIOUR, shown)
    return Use(trained=trained, first=first, shown=shown.rows)


def _recommendations(tell: Teller, here: Settings, url: str, followed: int) -> Use:
    trained, seconds = _train(tell, here, RECOMMENDATIONS)
    first = score_and_show(tell, here, RECOMMENDATIONS, full=True)
    (metric, recall), *_ = trained.metrics.items()
    tell.say(
        f"Recommendations: ten products for each customer, as arrays (trained in {seconds:.1f} s, {first.scored:,}",
        f"lists written in {first.seconds:.1f} s). Of what customers bought in the 30 days since",
        f"{trained.held_out_from:%d %B %Y}, which the model has not seen, this share was on their lists:",
    )
    tell.table(("", "model", "most popular"), [(metric, recall, trained.baseline[metric])])
    tell.say(f"The list of customer {followed}, with names:")
    shown = ask(url, PRODUCTS.format(followed))
    tell.sql(PRODUCTS.format(followed), shown)
    return Use(trained=trained, first=first, shown=shown.rows)


def _train(tell: Teller, here: Settings, pipeline: str) -> tuple[TrainSummary, float]:
    began = time.perf_counter()
    with tell.progress(f"training {pipeline}", None):
        return train(here, pipeline), time.perf_counter() - began


class _Bar:
    """Watches a run and shows how far it is."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def stage(self, name: str) -> None:
        """Write the name of the step beside the bar."""
        self._bar.update(self._bar.task_ids[0], description=name)

    def rows(self, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
