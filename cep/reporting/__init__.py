"""Figures and HTML files of what was found; plotly is loaded when one is made.

=============  ==============================================================
`figures`      prices with alerts, events per second, the events of a match
`html`         a figure as one file that needs no network
`notebook`     figures in notebooks that need no network
`downsample`   fewer points that look the same
=============  ==============================================================
"""

from __future__ import annotations

from cep.reporting.figures import chart, event_rates, match_timeline, price_with_alerts
from cep.reporting.html import write_html
from cep.reporting.notebook import show_in_notebook

__all__ = [
    "chart",
    "event_rates",
    "match_timeline",
    "price_with_alerts",
    "show_in_notebook",
    "write_html",
]
