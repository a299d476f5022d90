"""The rules of a pipeline over history, and how right they are.

=============  ==============================================================
`run`          rules over frames: the same matches as live
`record`       that, with contributing events, what was suppressed, scores
`labels`       what should have been found
`score`        precision, recall, lead, intervals, baselines
`compare`      whether a live run derived the same
`sweeps`       one rule with many settings, and what choosing is worth
=============  ==============================================================
"""

from cep.backtesting.compare import Comparison
from cep.backtesting.labels import Labels, labels_of
from cep.backtesting.record import Backtest, backtest
from cep.backtesting.run import RunResult, run_rules
from cep.backtesting.score import Score
from cep.backtesting.sweeps import Sweep, WalkForward, sweep

__all__ = [
    "Backtest",
    "Comparison",
    "Labels",
    "RunResult",
    "Score",
    "Sweep",
    "WalkForward",
    "backtest",
    "labels_of",
    "run_rules",
    "sweep",
]
