"""The models of the example shop on rows made by hand: lists of products, and numbered segments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.demo import pipeline_folder
from tasks.pipeline import load_pipeline


def estimator(name: str) -> Any:
    build = load_pipeline(pipeline_folder(name)).estimator_function()
    assert build is not None
    return build()


def histories(*bought: str | None) -> pd.DataFrame:
    return pd.DataFrame({"bought": pd.Series(bought, dtype=object)})


@pytest.fixture(scope="module")
def recommender() -> Any:
    """Fitted on 40 products: whoever bought an even one buys the next odd one; 8 is what everybody buys."""
    numbers = np.random.default_rng(5).integers(0, 20, 40_000) * 2
    frame = histories(*(str(number) for number in numbers), *["1 3"] * 9_000)
    return estimator("recommendations").fit(frame, np.concatenate([numbers + 1, np.full(9_000, 8)]))


def test_what_follows_on_the_products_bought_comes_first(recommender: Any) -> None:
    items, scores = recommender.recommend(histories("20", "20 4 20"), 5)
    assert items[0, 0] == 21
    assert set(items[1, :2]) == {5, 21}
    assert items[1, 0] == 21  # bought twice says more than bought once
    assert (np.diff(scores, axis=1) <= 0).all()


def test_who_bought_nothing_known_gets_the_most_popular(recommender: Any) -> None:
    unknown = "prescore: a category that training has not seen"
    items, scores = recommender.recommend(histories(None, "", "777 888", unknown), 5)
    popular = recommender.items_[np.argsort(-recommender.popularity_, kind="stable")[:5]]
    assert popular[0] == 8
    assert (items == popular).all()
    assert (scores == np.sort(recommender.popularity_)[::-1][:5]).all()


def test_unknown_products_do_not_disturb_the_known_ones(recommender: Any) -> None:
    items, scores = recommender.recommend(histories("20 4", "20 999 4"), 5)
    assert (items[0] == items[1]).all()
    assert (scores[0] == scores[1]).all()


def test_a_list_holds_no_product_twice_and_is_as_long_as_there_are_products(recommender: Any) -> None:
    random = np.random.default_rng(6)
    frame = histories(*(" ".join(map(str, random.integers(0, 50, length))) for length in range(1, 60)))
    items, scores = recommender.recommend(frame, 10)
    assert items.shape == scores.shape == (59, 10)
    assert all(len(set(row)) == 10 for row in items.tolist())
    assert recommender.recommend(frame, 1_000)[0].shape == (59, len(recommender.items_))


def test_a_list_does_not_depend_on_the_batch(recommender: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    frame = histories(*(" ".join(map(str, random.integers(0, 50, 7))) for _ in range(300)))
    together = recommender.recommend(frame, 10)
    alone = [recommender.recommend(frame.iloc[at : at + 1], 10) for at in range(300)]
    module = __import__("sys").modules[type(recommender).__module__]
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 100)
    in_blocks = recommender.recommend(frame, 10)
    for part in (0, 1):
        assert (np.concatenate([one[part] for one in alone]) == together[part]).all()
        assert (in_blocks[part] == together[part]).all()


def test_products_may_be_named_by_text() -> None:
    frame = histories(*["green-tea"] * 300, *["ink"] * 300)
    model = estimator("recommendations").fit(frame, np.array(["pot"] * 300 + ["pen"] * 300, dtype=object))
    items, _ = model.recommend(histories("green-tea", "ink"), 1)
    assert items.tolist() == [["pot"], ["pen"]]
    assert "green-tea" in model.items_
    assert model.items_.dtype.kind == "U"  # an array of objects could not be saved


def test_segments_are_numbered_from_who_ordered_last() -> None:
    random = np.random.default_rng(8)
    days = np.repeat([400.0, 3.0, 90.0, 16.0], 200) * random.uniform(0.8, 1.2, 800)
    frame = pd.DataFrame(
        {
            "days_since_order": days,
            "orders_365d": np.round(400 / days),
            "spent_365d": 9_000 / days,
            "visits_90d": np.round(90 / days),
        }
    )
    model = estimator("segments").fit(frame)
    found = model.predict(frame)
    means = [days[found == number].mean() for number in range(4)]
    assert means == sorted(means)
    distances = model.transform(frame)
    assert (distances.argmin(axis=1) == found).all()
    assert (model[-1].labels_ == found).all()
    refund = frame.iloc[:1].assign(spent_365d=-12.0)
    assert (model.transform(refund) == model.transform(refund.assign(spent_365d=0.0))).all()
