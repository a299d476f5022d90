"""Pages with figures that work offline and run nothing but plotly.

A page carries plotly.js once and talks to nobody. Its content security policy
lets exactly two scripts run, named by their hashes: plotly.js and the lines that
draw the figures. The figures themselves are data in a block that no browser
executes, with ``<``, ``>`` and ``&`` escaped, so that no text in it can end that
block. Styles may be inline, because plotly writes them.

A figure's title and subtitle stand above it as text of the page, so that they wrap
on a phone. There, and on paper, legends stand below.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cep.reporting.markup import Markup, element, escaped, joined
from cep.style import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import plotly.graph_objects as go

_DRAW: Final = """
const data = document.getElementById("figure-data").textContent;
const {figures, config} = JSON.parse(data);
const places = figures.map((_, i) => document.getElementById(`figure-${i}`));
const NARROW = 700, PAPER = 680;

function layoutFor(figure, width) {
  const layout = structuredClone(figure.layout);
  layout.autosize = true;
  if (width > NARROW) return layout;
  const named = figure.data.filter(d => d.showlegend !== false && d.name).length;
  const rows = Math.ceil(named / (width > 500 ? 2 : 1));
  const legend = layout.showlegend === false || named < 2 ? 0 : 24 * rows + 40;
  layout.height += legend;
  layout.margin = {...layout.margin, l: 8, r: 8, b: 60 + legend};
  layout.legend = {...layout.legend, orientation: "h", x: 0, xanchor: "left",
                   y: 0, yref: "container", yanchor: "bottom", xref: "container"};
  layout.font = {...layout.font, size: 12};
  return layout;
}

function draw(width) {
  figures.forEach((figure, i) => {
    const layout = layoutFor(figure, width ?? places[i].clientWidth);
    if (width) { layout.autosize = false; layout.width = width; }
    places[i].style.height = `${layout.height}px`;
    const bar = width || innerWidth < NARROW ? false : "hover";
    Plotly.react(places[i], figure.data, layout, {...config, displayModeBar: bar});
  });
}

draw();
let drawnAt = innerWidth;
addEventListener("resize", () => {
  if ((innerWidth < NARROW) !== (drawnAt < NARROW)) draw();
  drawnAt = innerWidth;
});
addEventListener("beforeprint", () => draw(PAPER));
addEventListener("afterprint", () => draw());
"""
_STYLE: Final = """
body { margin: 0 auto; max-width: 1400px; padding: 12px 16px; color: #1a1a1a;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 24px; line-height: 1.25; margin: .4em 0; }
h2 { font-size: 19px; margin: 1.8em 0 .5em; border-bottom: 1px solid #c8c8c8; }
h3 { font-size: 16px; margin: 1.4em 0 .3em; }
p, ul, dl { max-width: 75em; }
figure { margin: 1.2em 0; }
figcaption p { margin: .2em 0 .4em; font-size: 13px; }
figcaption .title { font-size: 17px; font-weight: 600; margin: 0; }
.scroll { overflow-x: auto; margin: .6em 0 1em; }
table { border-collapse: collapse; font-size: 13px; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3em 0; }
th, td { padding: 3px 10px 3px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; unicode-bidi: isolate; max-width: 44em; }
th { font-weight: 600; white-space: nowrap; }
thead th { border-bottom-color: #1a1a1a; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td.word { white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 20em; }
.note { border-left: 4px solid #D55E00; padding: .2em .8em; font-weight: 600; }
.aside { font-size: 13px; color: #4a4a4a; }
dt { font-weight: 600; margin-top: .5em; }
dd { margin: 0; }
@media (max-width: 700px) {
  body { padding: 8px 10px; }
  h1 { font-size: 20px; }
  table { font-size: 12px; }
}
@media print {
  @page { margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2, h3, figcaption { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  table { font-size: 8.5pt; }
  .scroll { overflow: visible; }
  td, th { white-space: normal !important; min-width: 0 !important; }
}
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
{body}
<noscript>A script in this file draws the figures; allow scripts to see them.</noscript>
</main>
<script type="application/json" id="figure-data">{data}</script>
<script>{plotly}</script>
<script>{draw}</script>
</body>
</html>
"""
_TOP: Final = 40  # of a figure without its title, for the name of its first panel
_PLOTLY_TOP: Final = 100
_PLOTLY_HEIGHT: Final = 450


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
    shown = title or _title(figure) or "Figure"
    body = joined([place_of(figure, 0), sources(provenance)], "\n")
    return write_page(path, shown, body, [figure])


def write_page(
    path: str | Path, title: str, body: Markup, figures: Sequence[go.Figure]
) -> Path:
    """Write a page and return its path.

    ``body`` has a place for each figure, as `place_of` makes it.
    """
    from plotly.offline import get_plotlyjs

    # A browser hashes a script after turning CR LF into LF.
    plotly = get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")
    drawn = ",".join(_without_title(figure) for figure in figures)
    page = _PAGE.format(
        policy=_policy(plotly, _DRAW),
        title=escaped(title),
        style=_STYLE,
        body=body,
        data=_as_data(f'{{"config": {json.dumps(CONFIG)}, "figures": [{drawn}]}}'),
        plotly=plotly,
        draw=_DRAW,
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(page.encode("utf-8", "backslashreplace"))
    return target


def place_of(figure: go.Figure, number: int) -> Markup:
    """Return title, subtitle and the place of the figure with this number."""
    title = _title(figure)
    caption = element(
        "figcaption",
        element("p", title, class_="title"),
        *(element("p", line) for line in _sentences(figure)),
    )
    style = f"height: {_height(figure)}px"
    place = element(
        "div", id=f"figure-{number}", role="img", aria_label=title, style=style
    )
    return element("figure", caption, place)


def sources(provenance: Iterable[Any]) -> Markup:
    """Return where data is from, as a section; nothing if there is nothing."""
    rows = [
        joined(
            [
                element("dt", one.name),
                element(
                    "dd",
                    one.note,
                    element("br"),
                    f"{one.source}; {one.licence}, {one.attribution}",
                ),
            ]
        )
        for one in provenance
    ]
    if not rows:
        return Markup()
    return element("section", element("h2", "Data"), element("dl", *rows))


def _title(figure: go.Figure) -> str:
    return html.unescape((figure.layout.title.text or "").replace("<br>", " "))


def _sentences(figure: go.Figure) -> list[object]:
    """Join what was broken to fit a figure; what was bold stays apart and bold."""
    lines = (figure.layout.title.subtitle.text or "").split("<br>")
    bold = [line[3:-4] for line in lines if line[:3] == "<b>" and line[-4:] == "</b>"]
    plain = [line for line in lines if line[:3] != "<b>"]
    told: list[object] = [html.unescape(" ".join(plain))] if any(plain) else []
    return told + ([element("b", html.unescape(" ".join(bold)))] if bold else [])


def _without_title(figure: go.Figure) -> str:
    """Return a figure as JSON whose title is gone and whose panels stay as high."""
    told = json.loads(figure.to_json())
    layout = told["layout"]
    layout.pop("title", None)
    layout["height"] = _height(figure)
    layout.setdefault("margin", {})["t"] = _TOP
    return json.dumps(told)


def _height(figure: go.Figure) -> int:
    layout = figure.layout
    top = layout.margin.t
    if top is None:
        top = layout.template.layout.margin.t or _PLOTLY_TOP
    return int((layout.height or _PLOTLY_HEIGHT) - top + _TOP)


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
