"""The overview, and small versions of `python -m tests.analysis`."""

import numpy as np
import pytest

from cep.analysis import Series, q_values, relations
from cep.errors import UsageError
from tests.analysis import trials
from tests.analysis.planted import MS, SECOND, bursty, followed, pair_with_lead, pushed


@pytest.fixture(scope="module")
def overview():
    rng = np.random.default_rng(4)
    x = bursty(rng, 400, "asked", rates=(0.05, 0.2, 1.0))
    y = followed(rng, x, SECOND, 0.6, noise=bursty(rng, 400, "y"), name="answered")
    ahead, behind = pair_with_lead(rng, 500, 400)
    streams = [
        x,
        y,
        Series("price", ahead.time_ns, ahead.values),
        Series("follower", behind.time_ns, behind.values),
        Series("short", np.arange(5), np.arange(5.0)),
    ]
    return relations(streams, max_lag="2s", step="100ms", draws=999)


def test_what_was_planted_is_found_and_nothing_else(overview):
    table = overview.to_polars()
    found = table.filter(table["q_value"] < 0.05)
    assert found["x"].to_list() == ["asked", "price"]
    assert found["y"].to_list() == ["answered", "follower"]
    assert found["method"].to_list() == ["rates", "lead-lag"]
    assert (found["lag_low"].dt.total_milliseconds() > 0).all()
    assert str(overview).count("leads") == 2


def test_a_pair_without_enough_data_has_a_row_that_says_so(overview):
    table = overview.to_polars()
    assert table.filter(table["y"] == "short")["method"].unique().to_list() == [
        "not tested"
    ]
    assert "asked, short: not tested" in str(overview)


def test_q_values_are_over_all_that_was_asked(overview):
    p = [row.p_value for row in overview.rows]
    q = [row.q_value for row in overview.rows]
    np.testing.assert_allclose(q, q_values(p))
    # Six pairs could be tested: four of events and a series, asked twice.
    assert np.isfinite(p).sum() == 10


def test_the_overview_draws_and_is_a_file(overview, tmp_path):
    cells = overview.plot().data[0]
    assert cells.z[0][1] == pytest.approx(cells.z[1][0])
    written = overview.to_csv(tmp_path / "all.csv").read_text().splitlines()
    assert len(written) == len(overview.rows) + 1


def test_events_that_push_a_series_are_told_from_those_that_follow_it():
    rng = np.random.default_rng(2)
    x = bursty(rng, 1800, "x", rates=(0.02, 0.1, 0.4))
    walk = pushed(rng, x, SECOND, push=1e-3)
    found = relations([walk, x], max_lag="4s", step="250ms", draws=199)
    after, before = found.rows
    assert after.statement.startswith("w goes up after x")
    assert before.statement == "w has not moved before x more than at any time"


def test_nothing_found_is_said_to_be_no_proof():
    rng = np.random.default_rng(0)
    found = relations([bursty(rng, 400, "x"), bursty(rng, 400, "y")], max_lag="2s")
    assert "0 of 1 questions" in str(found)
    assert "no proof" in str(found)


@pytest.mark.parametrize("streams", [[], ["x"], ["x", "x"]])
def test_streams_of_one_name_or_too_few_are_refused(streams):
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="two or more, each with a name of its own"):
        relations([bursty(rng, 50, name) for name in streams])


@pytest.mark.slow
def test_unrelated_streams_are_seldom_called_related():
    tally = trials.null(4)
    p = np.array(list(tally.said.values()))
    # 36 p-values, of which 5 % is 1.8; eight or more have a chance of 0.1 %.
    assert (p < 0.05).sum() < 8
    assert sum((q_values(own) < 0.05).any() for own in p) <= 2


@pytest.mark.slow
def test_planted_leads_are_found_by_every_method():
    for lead_ns in (50 * MS, SECOND):
        tally = trials.power(1, lead_ns)
        assert all(all(found) for found in tally.said.values()), tally
