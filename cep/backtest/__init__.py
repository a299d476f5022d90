"""The rules of a pipeline over history."""

from cep.backtest.run import RunResult, run_rules

__all__ = ["RunResult", "run_rules"]
