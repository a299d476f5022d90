"""Figures in notebooks that need no network, then or in a saved copy.

Plotly's own renderer "notebook" embeds plotly.js once but asks a content
network for MathJax with every figure, and its toolbar offers to upload the
data. This one does neither.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cep.style import CONFIG

if TYPE_CHECKING:
    import plotly.graph_objects as go

NAME: Final = "cep"


def show_in_notebook() -> None:
    """Make the figures of this process show in notebooks, offline.

    Call it once, before the first figure: the output of the cell that shows it
    carries plotly.js for all of them.
    """
    import plotly.io as pio

    base: Any = type(pio.renderers["notebook"])

    class Offline(base):  # type: ignore[misc]
        """As plotly's, without MathJax."""

        def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
            page = pio.to_html(
                fig_dict,
                config=CONFIG,
                include_plotlyjs=False,
                include_mathjax=False,
                full_html=False,
                default_width="100%",
                validate=False,
            )
            return {"text/html": page}

    pio.renderers[NAME] = Offline()
    pio.renderers.default = f"plotly_mimetype+{NAME}"


def begin_pictures() -> None:
    """Give the cell that runs plotly.js, for `picture_data`."""
    import plotly.io as pio

    if NAME not in pio.renderers:
        show_in_notebook()
    pio.renderers[NAME].activate()


def picture_data(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as what a notebook's display takes and can replace.

    A figure that is displayed as an object shows itself anew each time.
    """
    import plotly.io as pio

    page: dict[str, Any] = pio.renderers[NAME].to_mimebundle(figure.to_dict())
    return {"application/vnd.plotly.v1+json": json.loads(figure.to_json()), **page}
