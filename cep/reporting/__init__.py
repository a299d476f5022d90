"""Reports, figures and HTML files of what was found; plotly is loaded when one is made.

=============  ==============================================================
`build`        a report on streams: `cep.report`
`figures`      prices with alerts, events per second, the events of a match
`html`         a figure as one file that needs no network
`notebook`     figures in notebooks that need no network
`monitor`      streams as they grow, in a notebook
`downsample`   fewer points that look the same
=============  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.reporting.figures import chart, event_rates, match_timeline, price_with_alerts
from cep.reporting.html import write_html
from cep.reporting.monitor import Monitor
from cep.reporting.notebook import show_in_notebook

if TYPE_CHECKING:
    from cep.reporting.build import Report as Report
    from cep.reporting.build import report as report

__all__ = [
    "report",
    "Report",
    "Monitor",
    "chart",
    "event_rates",
    "match_timeline",
    "price_with_alerts",
    "show_in_notebook",
    "write_html",
]


def __getattr__(name: str) -> object:
    # A report needs the statistics and the rules' engine, a figure neither.
    if name not in ("Report", "report"):
        msg = f"module 'cep.reporting' has no attribute {name!r}"
        raise AttributeError(msg)
    from cep.reporting import build

    return getattr(build, name)
