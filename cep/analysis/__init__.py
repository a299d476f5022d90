"""Whether one stream has to do with another, and honest numbers about it.

====================  ========================================================
`series`              a value over time, from a frame; one value per instant
`event_times`         when something happened, from a frame
`alignment`           streams that tick at different times, on common instants
`correlation`         of two series as time goes: rolling, or fading
`lead_lag`            Hayashi-Yoshida correlation of two series of ticks, by lag
`rates`               correlation of how often events come, by lag
`event_study`         the mean path of one stream around events of another
`coincidence`         how often events of one stream are followed by another's
`granger`             whether one stream's past helps to foretell another
`transfer_entropy`    the same in bits, without straight lines
`change_points`       when the level of a stream changed
`traces`              what one request did across streams, latency per hop
`sequences`           which types of events follow which, and which runs repeat
`relations`           which of several streams have to do with each other
`rotation`            surrogates that keep each stream's own rhythm
`grid`                streams on cells of time, and their slow and daily shape
`inference`           blocks of time, intervals, q-values
`result`              what all results can do: print, plot, to_polars, to_csv
====================  ========================================================

Nothing here reads Redis; frames come from `cep.load` or from anywhere else.
"""

from __future__ import annotations

from cep.analysis.alignment import Aligned, join_as_of, refresh_times, resample
from cep.analysis.change_points import ChangePoints, change_points
from cep.analysis.coincidence import Coincidence, event_coincidence
from cep.analysis.correlation import (
    CorrelationOverTime,
    ewm_correlation,
    rolling_correlation,
)
from cep.analysis.event_study import EventStudy, event_study
from cep.analysis.event_times import EventTimes, event_times
from cep.analysis.granger import Granger, granger
from cep.analysis.inference import q_values
from cep.analysis.lead_lag import LeadLag, lead_lag
from cep.analysis.rates import RateCorrelation, rate_correlation
from cep.analysis.relations import Relation, Relations, relations
from cep.analysis.result import Result
from cep.analysis.sequences import (
    Sequences,
    TypePairs,
    co_occurrence,
    follows,
    frequent_sequences,
)
from cep.analysis.series import Series, series
from cep.analysis.traces import Traces, traces
from cep.analysis.transfer_entropy import TransferEntropy, transfer_entropy

__all__ = [
    # what comes in
    "Series",
    "series",
    "EventTimes",
    "event_times",
    # common instants
    "Aligned",
    "join_as_of",
    "resample",
    "refresh_times",
    # two streams
    "CorrelationOverTime",
    "rolling_correlation",
    "ewm_correlation",
    "LeadLag",
    "lead_lag",
    "RateCorrelation",
    "rate_correlation",
    "EventStudy",
    "event_study",
    "Coincidence",
    "event_coincidence",
    "Granger",
    "granger",
    "TransferEntropy",
    "transfer_entropy",
    # one stream, or events of many types
    "ChangePoints",
    "change_points",
    "Traces",
    "traces",
    "TypePairs",
    "follows",
    "co_occurrence",
    "Sequences",
    "frequent_sequences",
    # many
    "Relation",
    "Relations",
    "relations",
    "q_values",
    "Result",
]
