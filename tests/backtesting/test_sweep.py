"""A sweep scores as backtests do, and says what choosing the best is worth."""

import numpy as np
import polars as pl
import pytest

import cep
from cep.backtesting import sweep
from cep.errors import UsageError
from cep.rules import build_rule, e, emit, on
from cep.sample import mentions

GRID = {"sigmas": [4, 6], "window": ["3d", "7d"]}
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def found():
    return sweep(mentions.surge, GRID, mentions.history(), mentions.labels(), draws=99)


def test_each_setting_scores_as_its_own_backtest(found):
    assert [tuple(x.values()) for x in found.settings] == [
        (4, "3d"),
        (4, "7d"),
        (6, "3d"),
        (6, "7d"),
    ]
    for setting, one in zip(found.settings, found.scores, strict=True):
        alone = cep.backtest(
            mentions.surge(**setting), mentions.history(), mentions.labels(), draws=99
        ).scores["mentions-surge"]
        for name in ("alerts", "true_alerts", "labels", "found", "lead_ns"):
            assert getattr(one, name) == getattr(alone, name)
        assert one.f1.value == alone.f1.value
        assert one.always_on == alone.always_on
    table = found.to_polars()
    assert table["f1"].arg_max() == found.best
    assert table["window"].to_list() == ["3d", "7d"] * 2


def test_it_prints_and_draws_how_many_were_tried(found):
    said = str(found)
    assert said.startswith("best by f1: sigmas=6, window='7d'")
    assert "the best of 4 settings" in said
    assert "expect less of data to come" in said
    figure = found.plot(y="sigmas")
    assert np.allclose(
        figure.data[0].z.T.ravel()[[0, 3]], found.to_polars()["f1"].to_numpy()[[0, 3]]
    )
    assert "the best of 4 settings" in figure.layout.title.subtitle.text
    with pytest.raises(UsageError, match="no parameter 'sigma'"):
        found.plot(x="sigma")


def noise(seed):
    """Alerts that have nothing to do with the labels, whatever the setting."""
    rng = np.random.default_rng(seed)
    n = 300
    times = np.sort(rng.choice(100 * DAY_MS, n, replace=False))
    frame = pl.DataFrame(
        {
            "type": ["market.trade"] * n,
            "event_time": pl.Series(times).cast(pl.Datetime("ms", "UTC")),
            "symbol": ["X"] * n,
            "price": rng.random(n),
            "quantity": rng.random(n),
        }
    )
    starts = pl.Series(rng.integers(0, 99, 20) * DAY_MS).cast(pl.Datetime("ms", "UTC"))
    return frame, pl.DataFrame({"start": starts}).with_columns(
        end=pl.col("start") + pl.duration(hours=6)
    )


def band(price, quantity):
    """Trades that no other setting takes."""
    where = (e.price > price) & (e.price <= price + 0.2)
    where &= (e.quantity > quantity) & (e.quantity <= quantity + 0.2)
    return build_rule("band", on("market.trade").where(where), [emit()])


def test_the_best_of_many_settings_on_noise_is_not_called_good():
    grid = {name: [0, 0.2, 0.4, 0.6, 0.8] for name in ("price", "quantity")}
    single, adjusted = 0, 0
    for seed in range(20):
        one = sweep(band, grid, *noise(seed), draws=99, seed=seed)
        single += min(x.p_value for x in one.scores) <= 0.05
        adjusted += one.p_value <= 0.05
    # Chosen among 25, the best alone looks good far too often.
    assert single >= 5 > adjusted
    assert adjusted <= 3  # 5 % of 20 is 1


def test_walk_forward_uses_only_the_past(found):
    walk = found.walk_forward(3)
    assert len(walk.folds) == 3
    # What comes after the last cut changes no choice before it.
    labels = mentions.labels()
    history = mentions.history()
    cut = pl.lit(walk.folds["until"][1]).str.to_datetime(time_zone="UTC")
    changed = labels.with_columns(
        key=pl.when(pl.col("end") >= cut).then(pl.lit("KO")).otherwise("key")
    )
    assert changed["key"].to_list() != labels["key"].to_list()
    other = sweep(mentions.surge, GRID, history, changed, draws=99).walk_forward(3)
    own = ["sigmas", "window", "past_f1"]
    assert other.folds[own][:2].equals(walk.folds[own][:2])
    assert walk.score.alerts == walk.folds["alerts"].sum()
    assert walk.score.labels >= walk.folds["labels"].sum()
    assert "settings chosen on the past" in str(walk)
    assert list(walk.plot().data[1].y) == walk.folds["next_f1"].to_list()


def test_folds_score_by_hand():
    # Labels at hours 1, 3, 5, 7 of 8; setting 1 is right at first, setting 2 later.
    hour = 3_600_000
    at = [hour, 3 * hour, 5 * hour, 7 * hour]
    times = pl.Series([0, *at, 8 * hour]).cast(pl.Datetime("ms", "UTC"))
    frame = pl.DataFrame(
        {
            "type": ["market.trade"] * 6,
            "event_time": times,
            "symbol": ["X"] * 6,
            "price": [0.0, 1, 1, 2, 2, 0],
            "quantity": [1.0] * 6,
        }
    )

    def equal(price):
        return build_rule("equal", on("market.trade").where(e.price == price), [emit()])

    labels = pl.DataFrame({"event_time": times[1:5]})
    one = sweep(equal, {"price": [1, 2]}, frame, labels, tolerance="10m", draws=99)
    assert [x.recall.value for x in one.scores] == [0.5, 0.5]
    folds = one.walk_forward(3).folds
    assert folds["price"].to_list() == [1, 1, 1]
    assert folds["past_f1"].to_list() == pytest.approx([1, 1, 0.8])
    assert folds["next_f1"].to_list() == [1, 0, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": {}}, "The grid has 0 combinations"),
        ({"grid": {"price": "abc"}}, "The values of 'price' are 'abc'"),
        ({"grid": {"price": [], "quantity": [1]}}, "The values of 'price'"),
        ({"grid": {"price": list(range(100)), "quantity": list(range(100))}}, "10,000"),
        ({"metric": "recal"}, "Did you mean 'recall'?"),
        ({"factory": lambda **_: 7}, "which is no rule"),
    ],
)
def test_what_cannot_be_swept_is_refused(change, said):
    frame, labels = noise(0)
    options = {"factory": band, "grid": {"price": [1], "quantity": [1]}} | change
    with pytest.raises(UsageError) as caught:
        sweep(data=frame, labels=labels, **options)
    assert said in str(caught.value)


def test_folds_without_labels_are_refused(found):
    with pytest.raises(UsageError, match="No label ends before"):
        found.walk_forward(200)
    with pytest.raises(UsageError, match="folds is 1"):
        found.walk_forward(1)
