"""Compiles rules and runs them over batches of columns.

`operator.Operator` is the whole interface: ``ingest``, ``step``, ``delta``,
``restore``. It knows neither Redis nor DataFrames nor clocks.
"""
