"""Figures of streams and of what rules find in them.

=========  ==================================================================
`prices`   prices, or any other value, with alerts marked
`rates`    events per second of each stream
`match`    the events that one match is made of
=========  ==================================================================

Every figure says what it shows and in which unit, has its times in UTC, and
states in its subtitle whatever was left out or summarised to draw it. Foreign
text (symbols, keys, titles) is shown as it is and never read as markup. Results
of `cep.analysis` and `cep.backtest` draw themselves: ``result.plot()``.

A figure is a `plotly.graph_objects.Figure`: notebooks show it, `write_html`
makes a file of it.
"""

from __future__ import annotations

from cep.reporting.figures.match import match_timeline
from cep.reporting.figures.prices import chart, price_with_alerts
from cep.reporting.figures.rates import event_rates

__all__ = ["chart", "event_rates", "match_timeline", "price_with_alerts"]
