"""The rules of a pipeline over history."""

from cep.backtesting.run import RunResult, run_rules

__all__ = ["RunResult", "run_rules"]
