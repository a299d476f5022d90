"""A figure as one HTML file: works offline, runs nothing but plotly.

The file carries plotly.js once and talks to nobody. Its content security
policy lets exactly two scripts run, named by their hashes: plotly.js and the
two lines that draw the figure. The figure itself is data in a block that no
browser executes, with ``<``, ``>`` and ``&`` escaped, so that no text in it can
end that block. Styles may be inline, because plotly writes them.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cep.style import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable

    import plotly.graph_objects as go

_DRAW: Final = """
const {figure, config} = JSON.parse(document.getElementById("figure-data").textContent);
Plotly.newPlot("figure", figure.data, figure.layout, config);
"""
_STYLE: Final = """
body { margin: 0 auto; max-width: 1500px; padding: 12px 16px; color: #1a1a1a;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
section { margin: 1.5em 0 2em 0; max-width: 75em; font-size: 13px; }
h2 { font-size: 15px; }
dt { font-weight: 600; margin-top: .7em; }
dd { margin: 0; }
"""
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<div id="figure" role="img" aria-label="{title}" style="height: {height}px"></div>
<noscript>A script in this file draws the chart; allow scripts to see it.</noscript>
{provenance}</main>
<script type="application/json" id="figure-data">{data}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""


def write_html(
    figure: go.Figure,
    path: str | Path,
    *,
    title: str | None = None,
    provenance: Iterable[Any] = (),
) -> Path:
    """Write a figure as one file and return its path.

    Parameters
    ----------
    figure
        What to show.
    path
        Where to; missing folders are made, an existing file is replaced.
    title
        The page's title; by default the figure's.
    provenance
        Where the data is from, listed below the figure: each with ``name``,
        ``source``, ``licence``, ``attribution`` and ``note``, as
        `cep.sample.provenance` returns them.
    """
    from plotly.offline import get_plotlyjs

    # A browser hashes a script after turning CR LF into LF.
    plotly = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    shown = title or html.unescape(figure.layout.title.text or "Figure")
    page = _PAGE.format(
        policy=_policy(plotly, _DRAW),
        title=html.escape(shown),
        style=_STYLE,
        height=int(figure.layout.height or 450),
        provenance=_sources(provenance),
        data=_as_data(
            f'{{"config": {json.dumps(CONFIG)}, "figure": {figure.to_json()}}}'
        ),
        plotly=plotly,
        draw=_DRAW,
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(page.encode())
    return target


def _policy(*scripts: str) -> str:
    allowed = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _as_data(text: str) -> str:
    r"""Return JSON that cannot end the script block it stands in.

    >>> _as_data('"</script>"')
    '"\\u003c/script\\u003e"'
    """
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _sources(provenance: Iterable[Any]) -> str:
    rows = [
        f"<dt>{html.escape(one.name)}</dt>\n<dd>{html.escape(one.note)}<br>"
        f"{html.escape(one.source)}; {html.escape(one.licence)}, "
        f"{html.escape(one.attribution)}</dd>\n"
        for one in provenance
    ]
    if not rows:
        return ""
    return f"<section>\n<h2>Data</h2>\n<dl>\n{''.join(rows)}</dl>\n</section>\n"
