"""`prescore demo`: an example shop from the first order to a prediction that says that it has gone stale.

Nothing is played: the shop is rows in PostgreSQL, the model is trained on them, the runs are those of `prescore score`,
and every number on the screen was measured on the way. Only time is helped along, by a clock that runs ahead in the
demo's own database.
"""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.text import Text
from sqlalchemy.engine import make_url

from flows.score import RunSummary
from flows.train import train
from flows.uses import Use, rescore_uses, score_and_show, show_uses
from tasks import embedded, migrations
from tasks.database import clock, connect
from tasks.demo import (
    DATABASE,
    SHOP_PARTS,
    Cast,
    Day,
    ShopSize,
    ask,
    choose_cast,
    demo_database,
    load_demo,
    move_clock,
    open_shop,
    pass_day,
    pipeline_folder,
)
from tasks.errors import UsageError
from tasks.population import Mode
from tasks.settings import Settings
from tasks.telling import Answer, Teller, milliseconds, share_bar, span, state_text
from tasks.training import TrainSummary

PIPELINE = "churn"
DAY = timedelta(days=1)
# How far beyond a limit the clock is moved: past it, and what the limit separates is still seen.
BEYOND = timedelta(minutes=1)

LOOKUP = "SELECT * FROM predictions.churn WHERE customer_id = {}"
LOOKUP_ALWAYS = "SELECT state, churn_probability, scored_in FROM predictions.churn_for({})"
LEADS = """\
SELECT p.customer_id, c.name, c.country, bought.last_order, bought.spent, p.churn_probability
FROM predictions.churn_usable AS p
JOIN shop.customers AS c USING (customer_id)
CROSS JOIN LATERAL (
    SELECT max(ordered_at)::date AS last_order, sum(amount) AS spent
    FROM shop.orders
    WHERE customer_id = p.customer_id AND ordered_at > prescore.clock() - interval '60 days'
) AS bought
WHERE p.churn_probability < 0.8 AND c.unsubscribed_at IS NULL AND bought.spent > 100
ORDER BY p.churn_probability DESC
LIMIT 10"""
SMALLEST = 200
# How many customers are looked up one after the other to say how long one takes.
LOOKUPS = 200


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a reader was told about one customer at one instant of the clock."""

    clock: datetime
    data_as_of: datetime
    state: str
    churn_probability: float | None
    usable: int


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """What the demo did and measured."""

    url: str
    shop: ShopSize
    trained: TrainSummary
    first: RunSummary
    day: Day
    second: RunSummary
    #: The further uses: segments and recommendations.
    uses: tuple[Use, ...]
    cast: Cast
    #: Median of LOOKUPS lookups of one customer each, as a client waits for them.
    lookup_seconds: float
    leads_seconds: float
    readings: tuple[Reading, ...]
    seconds: float


def run_demo(settings: Settings, customers: int = 50_000, console: Console | None = None) -> DemoSummary:
    """Open the shop, train, score, look up, let a day pass, score the changes, and let the predictions go stale.

    Works in the database `prescore_demo` on the embedded server, made anew each time, never in PRESCORE_DATABASE_URL.
    Results go to ``console`` (standard output), progress to standard error.

    Raises
    ------
    UsageError
        When the shop would have fewer than SMALLEST customers.
    DemoIsRunning
        When another demo works there.
    """
    if customers < SMALLEST:
        raise UsageError(
            f"A shop of {customers:,} customers is too small to learn from and to have something happen every day. "
            f"Nothing was changed. Ask for {SMALLEST:,} or more."
        )
    began = time.perf_counter()
    tell = Teller(console)
    tell.title("prescore demo", "An online shop wants to know which customers are about to leave.")
    with tell.progress("starting the embedded PostgreSQL", None):
        server_url = embedded.ensure_running(settings.data_dir)
    with demo_database(server_url) as url:
        migrations.apply(url)
        here = Settings(database_url=url, pipelines_dir=pipeline_folder().parent, data_dir=settings.data_dir)
        today = _now(url)
        shop = _open_shop(tell, url, customers, today)
        trained = _train(tell, here)
        first = _score_everybody(tell, here)
        cast = choose_cast(url, since=today, customers=customers)
        yesterday = _lookups(url, cast)
        lookup, leads = _look_up(tell, url, cast)
        uses = show_uses(tell, here, url, cast.followed)
        day = _pass_day(tell, url, today, customers)
        second = _score_changes(tell, here, url, cast, yesterday)
        uses = rescore_uses(tell, here, url, uses, cast.followed)
        readings = _go_stale(tell, url, cast)
        move_clock(url, DAY)
    summary = DemoSummary(
        url=url, shop=shop, trained=trained, first=first, day=day, second=second,
        uses=uses, cast=cast,        lookup_seconds=lookup, leads_seconds=leads, readings=readings,
        seconds=time.perf_counter() - began,
    )  # fmt: skip
    _sum_up(tell, settings, summary)
    return summary


# --- the chapters -------------------------------------------------------------------------------------------------


def _open_shop(tell: Teller, url: str, customers: int, today: datetime) -> ShopSize:
    tell.chapter("The shop: two years of business")
    began = time.perf_counter()
    with tell.progress("loading the shop", len(SHOP_PARTS)) as bar:
        shop = open_shop(url, customers=customers, today=today, done=lambda _: bar.advance(bar.task_ids[0]))
    tell.say(
        f"In the database {DATABASE}, made anew on the embedded PostgreSQL; no other database is touched.",
        f"{shop.customers:,} customers, {shop.products:,} products, {shop.orders:,} orders and {shop.visits:,} visits,",
        f"loaded in {time.perf_counter() - began:.1f} s. Some customers buy every week, some every four months;",
        "some have turned to another shop without a word, and no table says who.",
    )
    return shop


def _train(tell: Teller, here: Settings) -> TrainSummary:
    tell.chapter("A model learns who will buy nothing in the next 30 days")
    began = time.perf_counter()
    with tell.progress("training", None):
        trained = train(here, PIPELINE)
    tell.say(
        f"Version {trained.version} of the model {trained.model}, in {time.perf_counter() - began:.1f} s:",
        f"it learned from {trained.rows_fitted:,} customers of the past, each with what was known then,",
        f"and was judged on {trained.rows_held_out:,} later ones, since {trained.held_out_from:%d %B %Y}:",
    )
    tell.table(
        ("", "model", "naive"),
        [(name, value, trained.baseline.get(name)) for name, value in trained.metrics.items()],
    )
    tell.say(f"(naive: {trained.baseline_is})", style="dim")
    return trained


def _score_everybody(tell: Teller, here: Settings) -> RunSummary:
    tell.chapter("The first run scores everybody")
    run = score_and_show(tell, here, PIPELINE, full=True)
    tell.say(
        f"{run.scored:,} customers in {run.seconds:.1f} s, {run.rows_per_second or 0:,.0f} rows a second, published as",
        f"generation {run.generation_id} in one transaction. Nobody is lost on the way, by count and by checksum:",
        f"{run.scored:,} scored + {run.unchanged:,} unchanged + {run.rejected:,} rejected = {run.population:,}.",
    )
    return run


def _look_up(tell: Teller, url: str, cast: Cast) -> tuple[float, float]:
    tell.chapter("Any SQL client reads the predictions")
    tell.say("One customer, with everything that a reader may want to know before trusting the number:")
    lookup = ask(url, LOOKUP.format(cast.followed))
    tell.sql(LOOKUP.format(cast.followed), lookup, upright=True)
    tell.say(
        "The lead list: bought lately, may be written to, and likely to leave. Above 0.8 most have left",
        "for good; below it a letter may help:",
    )
    leads = ask(url, LEADS)
    tell.sql(LEADS, leads)
    return _time_lookups(url), leads.seconds


def _pass_day(tell: Teller, url: str, today: datetime, customers: int) -> Day:
    tell.chapter("A day passes")
    move_clock(url, DAY)
    day = pass_day(url, since=today, customers=customers)
    tell.say(
        f"{day.orders:,} orders and {day.visits:,} visits come in, {day.signed_up:,} customers sign up,",
        f"{day.unsubscribed:,} want no more letters, and {_people(day.closed, 'asks', 'ask')} to be forgotten.",
    )
    return day


def _score_changes(tell: Teller, here: Settings, url: str, cast: Cast, yesterday: dict[int, Answer]) -> RunSummary:
    tell.chapter("The second run scores only what changed")
    run = score_and_show(tell, here, PIPELINE, full=False)
    tell.say(
        f"{run.scored:,} of {run.population:,} customers ({run.scored / run.population:.1%}) in {run.seconds:.1f} s:",
        f"{run.new:,} new and {run.changed:,} changed; {run.due:,} due for their age.",
        f"{_people(run.gone, 'is', 'are')} gone, {run.unchanged:,} keep the prediction they had.",
    )
    tell.say("The same question, yesterday and today:")
    tell.sql(LOOKUP_ALWAYS.format("..."))
    stories = {
        cast.buyer: "placed an order",
        cast.quiet: "nothing was heard",
        cast.newcomer: "signed up",
        cast.leaver: "asked to be forgotten",
    }
    rows = [
        (str(key), stories[key], *_told(yesterday[key]), *_told(answer))
        for key, answer in _lookups(url, cast).items()
    ]  # fmt: skip
    tell.table(("customer_id", "what happened", "yesterday", "scored in", "today", "scored in"), rows)
    return run


def _go_stale(tell: Teller, url: str, cast: Cast) -> tuple[Reading, ...]:
    tell.chapter("The loaders stop, nothing runs any more, and time goes on")
    tell.say("Nobody tells the readers; the database's clock does.")
    tell.sql(LOOKUP_ALWAYS.format(cast.followed))
    readings = [_read(url, cast)]
    limits = _one(
        url, "SELECT aging_at, stale_at, expires_at FROM predictions.churn WHERE customer_id = :key", key=cast.followed
    )
    for limit in limits:
        # The clock runs ahead by a day already; what is missing to the limit comes on top.
        move_clock(url, DAY + (limit - readings[0].clock) + BEYOND)
        readings.append(_read(url, cast))
    rows = [
        (r.clock, span(r.clock - r.data_as_of), state_text(r.state), r.churn_probability, r.usable) for r in readings
    ]
    tell.table(("clock", "age of the data", "state", "churn_probability", "rows in churn_usable"), rows)
    return tuple(readings)


def _sum_up(tell: Teller, settings: Settings, summary: DemoSummary) -> None:
    tell.chapter(f"In short: {summary.seconds:.0f} seconds, every number measured on the way")
    firsts = [summary.first, *(use.first for use in summary.uses)]
    seconds = [summary.second, *(use.second for use in summary.uses if use.second is not None)]
    tell.table(
        ("", "pipeline", "scored", "share", "in", "rows/s", "new", "changed", "gone"),
        [_in_short(day, run) for day, runs in (("day 1", firsts), ("day 2", seconds)) for run in runs],
    )
    tell.blank()
    tell.say(
        f"{summary.second.unchanged:,} customers of whom nothing was heard kept their churn prediction.",
        f"In plain SQL, one customer takes {milliseconds(summary.lookup_seconds)}, the lead list",
        f"{milliseconds(summary.leads_seconds)}. And no reader was ever handed an old number unawares:",
    )
    tell.say(Text(" → ").join(state_text(reading.state) for reading in summary.readings))
    tell.blank()
    tell.say("The shop stays open, on its second day, with the clock set back to it. Look around in it:")
    tell.shell(_psql(settings, summary.url))
    tell.say("What to try next:")
    tell.shell(
        _export(settings, summary.url),
        ("prescore status churn", "is it fresh, is a run overdue, which checks failed"),
        (f"prescore lookup churn {summary.cast.followed}", "what a reader sees"),
        (f"prescore lookup recommendations {summary.cast.followed}", "the list of a customer"),
        ("prescore check churn", "what would a run do now"),
        ("prescore score churn --full", "score everybody once more"),
        ("prescore rollback churn", "return to the publication before, without scoring"),
    )
    tell.say(f"The pipelines are folders of five files each, in {pipeline_folder().parent}")
    tell.close()


def _in_short(day: str, run: RunSummary) -> tuple[Any, ...]:
    counts = (run.new, run.changed, run.gone) if run.mode is Mode.INCREMENTAL else ("", "", "")
    share = f"{share_bar(run.scored, run.population)} {run.scored / run.population:.1%}"
    speed = round(run.rows_per_second or 0)
    return (day, run.pipeline, run.scored, share, f"{run.seconds:.1f} s", speed, *counts)


# --- small parts --------------------------------------------------------------------------------------------------


def _lookups(url: str, cast: Cast) -> dict[int, Answer]:
    """Look up everybody of the cast, in the order of the story."""
    keys = [key for key in (cast.buyer, cast.quiet, cast.newcomer, cast.leaver) if key is not None]
    return {key: ask(url, LOOKUP_ALWAYS.format(key)) for key in keys}


def _one(url: str, statement: str, **values: Any) -> Any:
    with connect(url, "prescore demo", autocommit=True) as connection:
        return connection.execute(sa.text(statement), values).one()


def _time_lookups(url: str) -> float:
    """Return the median seconds of a lookup, over customers spread over the population."""
    seconds = []
    with connect(url, "prescore demo", autocommit=True) as connection:
        keys = connection.execute(sa.text(load_demo("spread_customers")), {"customers": LOOKUPS}).scalars().all()
        for key in keys:
            began = time.perf_counter()
            connection.execute(sa.text(LOOKUP.format(key))).one()
            seconds.append(time.perf_counter() - began)
    return median(seconds)


def _now(url: str) -> datetime:
    with connect(url, "prescore demo") as connection:
        return clock(connection)


def _read(url: str, cast: Cast) -> Reading:
    return Reading(**_one(url, load_demo("read_state"), customer_id=cast.followed)._mapping)


def _told(answer: Answer) -> tuple[Any, Any]:
    """Return what a reader was told: the probability, or the state where there is none, and the generation."""
    state, probability, scored_in = answer.rows[0]
    return (state_text(state) if probability is None else f"{probability:.4f}", scored_in)


def _people(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _psql(settings: Settings, url: str) -> str:
    """Return the command that opens psql on the demo's database, without the password in it."""
    parsed = make_url(url)
    program = "psql" if shutil.which("psql") else shlex.quote(str(embedded.psql_program(settings.data_dir)))
    password = f'PGPASSWORD="$(cat {shlex.quote(str(settings.data_dir / "password"))})"'
    return f"{password} {program} -h {parsed.host} -p {parsed.port} -U {parsed.username} {parsed.database}"


def _export(settings: Settings, url: str) -> str:
    """Return the command that points prescore at the demo's database, without the password in it."""
    parsed = make_url(url)
    password = f"$(cat {shlex.quote(str(settings.data_dir / 'password'))})"
    place = f"{parsed.host}:{parsed.port}/{parsed.database}"
    return f'export PRESCORE_DATABASE_URL="postgresql://{parsed.username}:{password}@{place}"'
