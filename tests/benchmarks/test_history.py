"""The questions to history at a small size: everything is asked, nothing is timed."""

import json

from tests.benchmarks import history


def test_each_question_is_answered(capsys):
    assert history.main(["--quick", "--events", "3000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Without a folder of data no backtest is asked for.
    assert history.GOALS.keys() - {"backtest_cpu_s"} <= found["ratios"].keys()
    assert found["scan"]["1 % in the middle"]["rows"] in (30, 31)
    assert found["scan"]["the first 1,000"]["part read"] < 0.4
    assert found["ratios"]["scan_read"] < 0.02
