"""A year of daily runs over customers of a shop: a season, weekdays, harmless swings, and faults that are put in.

Every column is drawn from a normal of its own, which moves with the season, the weekday and from day to day, and is then
bent into the shape that such a column has: counts, amounts, days since, categories. Columns are independent, so that no
two share a harmless swing: more days have one somewhere than in a real shop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import ndtr, ndtri

from tasks.columns import Column
from tasks.profiles import ModelProfile, ProfileCounter, build_profile

#: The first day of the year; training is the year before.
START = datetime(2026, 1, 5, 3, tzinfo=UTC)
#: Standard deviation of what a mean moves by from day to day for no reason, in standard deviations of the column.
JITTER = 0.05

Draws = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One column: how its normal moves, and what is made of it."""

    name: str
    bend: Callable[[Draws], Any]
    importance: float
    season: float = 0.05
    weekend: float = 0.0
    phase: float = 0.0
    missing: float = 0.0
    postgres_type: str = "double precision"


def _counts(mean: float, spread: float) -> Callable[[Draws], Draws]:
    return lambda z: np.floor(np.exp(np.log(mean) + spread * z))


def _amounts(typical: float, spread: float) -> Callable[[Draws], Draws]:
    return lambda z: np.round(typical * np.exp(spread * z), 2)


def _days(typical: float) -> Callable[[Draws], Draws]:
    return lambda z: -typical * np.log(np.clip(ndtr(-z), 1e-12, 1.0))


def _categories(names: str, shares: list[float]) -> Callable[[Draws], Any]:
    values = np.array(names.split(), dtype=object)
    limits = ndtri(np.cumsum(shares)[:-1])
    return lambda z: values[np.searchsorted(limits, z)]


SHAPES: tuple[Shape, ...] = (
    Shape(name="spent_365d", bend=_amounts(240, 0.9), importance=0.26, season=0.12, missing=0.10),
    Shape(name="days_since_order", bend=_days(40), importance=0.18, season=0.12, weekend=0.05, missing=0.04),
    Shape(name="orders_90d", bend=_counts(4.5, 0.7), importance=0.12, season=0.15, phase=20),
    Shape(name="visits_30d", bend=_counts(9, 0.8), importance=0.09, season=0.12, weekend=0.10),
    Shape(name="days_since_visit", bend=_days(9), importance=0.07, season=0.10, weekend=-0.12),
    Shape(name="orders_365d", bend=_counts(14, 0.6), importance=0.06, season=0.10, phase=40),
    Shape(name="visits_90d", bend=_counts(26, 0.8), importance=0.05, season=0.10, weekend=0.05, phase=30),
    Shape(name="pages_90d", bend=_amounts(5, 0.4), importance=0.04, season=0.08, weekend=0.10, missing=0.06),
    Shape(name="tenure_days", bend=lambda z: 700 * ndtr(z), importance=0.03, season=0.0),
    Shape(name="gifts_365d", bend=_counts(1.4, 0.9), importance=0.03, season=0.15, phase=-30),
    Shape(name="age_years", bend=lambda z: np.clip(np.round(44 + 14 * z), 16, 99), importance=0.02, missing=0.05),
    Shape(name="basket", bend=_amounts(38, 0.6), importance=0.01, season=0.10),
    Shape(
        name="country",
        bend=_categories("de fr nl be at pl es it", [0.34, 0.2, 0.12, 0.1, 0.08, 0.07, 0.06, 0.03]),
        importance=0.02,
        postgres_type="text",
        weekend=0.05,
    ),
    Shape(
        name="segment",
        bend=_categories("new regular loyal lapsed", [0.2, 0.45, 0.25, 0.1]),
        importance=0.01,
        postgres_type="text",
    ),
    Shape(
        name="channel",
        bend=_categories("search mail social direct", [0.4, 0.3, 0.2, 0.1]),
        importance=0.01,
        postgres_type="text",
        season=0.10,
    ),
)
#: The prediction moves as the important features do, half as far.
SCORE = Shape(name="p", bend=lambda z: 1 / (1 + np.exp(1.2 - 1.1 * z)), importance=0.0, season=0.06)
COLUMNS = tuple(Column(name=shape.name, postgres_type=shape.postgres_type) for shape in SHAPES)


@dataclass(frozen=True)
class Fault:
    """Something that is wrong from a day on: with the normals of a column, or with the values of all columns."""

    name: str
    feature: str = "spent_365d"
    shift: float = 0.0
    scale: float = 1.0
    missing: float = 0.0
    change: Callable[[dict[str, Any], np.random.Generator], None] | None = None


def _hundredfold(values: dict[str, Any], draw: np.random.Generator) -> None:
    column = values["spent_365d"]
    values["spent_365d"] = np.where(draw.random(len(column)) < 0.03, column * 100, column)


def _new_country(share: float) -> Callable[[dict[str, Any], np.random.Generator], None]:
    def change(values: dict[str, Any], draw: np.random.Generator) -> None:
        values["country"] = np.where(draw.random(len(values["country"])) < share, "uk", values["country"])

    return change


def _swapped(values: dict[str, Any], _: np.random.Generator) -> None:
    values["orders_90d"], values["visits_90d"] = values["visits_90d"], values["orders_90d"]


def _constant(values: dict[str, Any], _: np.random.Generator) -> None:
    values["spent_365d"] = np.full(len(values["spent_365d"]), 240.0)


FAULTS: tuple[Fault, ...] = (
    Fault("mean + 0.25 sd", shift=0.25),
    Fault("mean + 0.5 sd", shift=0.5),
    Fault("sd x 1.3", scale=1.3),
    Fault("3 % of rows x 100", change=_hundredfold),
    Fault("12 pp more NULL", missing=0.12),
    Fault("1 % unseen category", feature="country", change=_new_country(0.01)),
    Fault("8 % unseen category", feature="country", change=_new_country(0.08)),
    Fault("two columns swapped", feature="orders_90d", change=_swapped),
    Fault("a constant column", change=_constant),
)


@dataclass(frozen=True)
class Shop:
    """The customers of one seed. The same day is the same, whatever was asked before."""

    entities: int
    seed: int = 1
    shapes: tuple[Shape, ...] = field(default=SHAPES, repr=False)

    def at(self, day: int) -> datetime:
        """Return the as_of of a day's run."""
        return START + timedelta(days=day)

    def shift(self, shape: Shape, day: int) -> float:
        """Return what the column's normal moves by on a day: season, weekday, and a swing."""
        place = 1 + [known.name for known in (*self.shapes, SCORE)].index(shape.name)
        swing = np.random.default_rng([self.seed, 10_000 + day, place]).normal(0, JITTER)
        weekend = shape.weekend if self.at(day).weekday() >= 5 else 0.0
        return float(shape.season * np.sin(2 * np.pi * (day + shape.phase) / 365) + weekend + swing)

    def day(self, day: int, fault: Fault | None = None, *, entities: int | None = None) -> dict[str, Any]:
        """Return the values of a day by column, the prediction ``p`` among them; NaN and None are missing."""
        draw = np.random.default_rng([self.seed, 20_000 + day])
        n = entities or self.entities
        values: dict[str, Any] = {}
        missing: dict[str, Any] = {}
        for shape in (*self.shapes, SCORE):
            z = draw.normal(size=n)
            share = shape.missing
            if fault is not None and fault.feature == shape.name:
                z, share = z * fault.scale + fault.shift, share + fault.missing
            values[shape.name] = shape.bend(z + self.shift(shape, day))
            missing[shape.name] = draw.random(n) < share
        if fault is not None and fault.change is not None:
            fault.change(values, draw)
        return {
            name: np.where(missing[name], np.nan, column) if column.dtype == np.float64 else column
            for name, column in values.items()
        }

    def training(self, rows_per_instant: int | None = None) -> dict[str, Any]:
        """Return the profile of a model that learnt from twelve instants of the year before, as a bundle holds it."""
        days = [self.day(-30 * month, entities=rows_per_instant) for month in range(12, 0, -1)]
        whole = {name: np.concatenate([day[name] for day in days]) for name in days[0]}
        held_out = pa.table({"p": np.concatenate([day["p"] for day in days[-3:]])})
        profile: dict[str, Any] = build_profile(table(whole), COLUMNS, held_out)
        for shape in self.shapes:
            profile["features"][shape.name]["importance"] = shape.importance
        return profile


def table(values: Mapping[str, Any]) -> pa.Table:
    """Return a day as the feature query would: NaN is NULL."""
    return pa.table({shape.name: pa.array(values[shape.name], from_pandas=True) for shape in SHAPES})


def counted(profile: ModelProfile, values: Mapping[str, Any]) -> ProfileCounter:
    """Count a day into the bins of a model, as a run does."""
    counter = ProfileCounter(profile)
    features = table(values).combine_chunks().to_batches()[0]
    counter.add(features, pa.RecordBatch.from_pydict({"p": values["p"]}))
    return counter


def drawn(shop: Shop, profile: ModelProfile, day: int, rows: int, fault: Fault | None = None) -> Any:
    """Draw the counts of a day with so many rows: shares from a smaller day of the same kind, then a multinomial.

    Returns an object with ``features`` and ``outputs``, as a ProfileCounter has them. The smaller day is an even grid of
    each column's normal, so that its shares are those of the distribution and not of a sample.
    """
    grid = _Grid(shop.entities, shop.seed, shop.shapes)
    small = counted(profile, grid.day(day, fault))
    draw = np.random.default_rng([shop.seed, 30_000 + day])
    return _Drawn(
        {name: _scaled(counts, rows, draw) for name, counts in small.features.items()},
        {name: _scaled(counts, rows, draw) for name, counts in small.outputs.items()},
    )


@dataclass(frozen=True)
class _Drawn:
    features: Mapping[str, Any]
    outputs: Mapping[str, Any]


class _Grid(Shop):
    def day(self, day: int, fault: Fault | None = None, *, entities: int | None = None) -> dict[str, Any]:
        n = entities or self.entities
        order = np.random.default_rng([self.seed, 40_000 + day])
        even = ndtri((np.arange(n) + 0.5) / n)
        values: dict[str, Any] = {}
        for shape in (*self.shapes, SCORE):
            z, share = even, shape.missing
            if fault is not None and fault.feature == shape.name:
                z, share = z * fault.scale + fault.shift, share + fault.missing
            values[shape.name] = order.permutation(shape.bend(z + self.shift(shape, day)))
            if values[shape.name].dtype == np.float64:
                values[shape.name][: round(share * n)] = np.nan
        if fault is not None and fault.change is not None:
            missing = {name: np.isnan(v) for name, v in values.items() if v.dtype == np.float64}
            fault.change(values, order)
            for name, where in missing.items():
                values[name] = np.where(where | np.isnan(values[name]), np.nan, values[name])
        return values


def _scaled(counts: Any, rows: int, draw: np.random.Generator) -> Any:
    names = ("nulls", "nans", "infinities", "under", "over", "unseen")
    parts = np.array([*(getattr(counts, name) or 0 for name in names), *counts.counts], dtype=np.float64)
    found = draw.multinomial(rows, parts / parts.sum())
    given = dict(zip(names, (int(value) for value in found[: len(names)]), strict=True))
    sums = None if counts.sums is None else counts.sums * rows / counts.rows
    m2 = None if counts.m2 is None else counts.m2 * rows / counts.rows
    return replace(counts, rows=rows, **given, counts=found[len(names) :].astype(np.int64), sums=sums, m2=m2)


def days_of(shop: Shop, first: int, last: int) -> Iterator[int]:
    """Yield the days of a stretch."""
    yield from range(first, last)
