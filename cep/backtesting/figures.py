"""The backtest sheet, and scores over a grid of parameters, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cep.style import ALERTS, INK, LINES, LONGEST_NAME, name_panel, plain, template

if TYPE_CHECKING:
    from collections.abc import Sequence

    import plotly.graph_objects as go
    import polars as pl
    from numpy.typing import NDArray

    from cep.backtesting.record import Backtest
    from cep.backtesting.score import Score

MAX_MARKERS: Final = 2000
MAX_LANES: Final = 24
_SCORES: Final = ("precision", "recall", "f1")
_NAMES: Final = {"precision": "precision", "recall": "recall", "f1": "F1"}
_RIGHT, _WRONG, _FOUND, _MISSED = LINES[0], ALERTS[0], "#009E73", "#8a8a8a"


def backtest_sheet(bt: Backtest) -> go.Figure:
    """Return alerts over time by rule; with labels also scores and leads.

    Labels are bars behind the alerts: thick where one came, thin where none did. There
    is a line for each rule and key, or for each rule if those are more than 24. Scores
    have their 95 % intervals, and beside them what as many random alerts and an alarm
    that is always on would score. Of more than 2,000 alerts evenly chosen ones are
    drawn, which the subtitle says.
    """
    from plotly.subplots import make_subplots

    scored = bool(bt.scores)
    rows = 3 if scored else 1
    rules = [rule.name for rule in bt.rules]
    lanes = min(MAX_LANES, len(bt.alerts.unique(["rule", "key"])) + 1)
    tall = max(110.0, 30.0 * max(lanes, len(rules)))
    heights = [tall, max(150.0, 66.0 * len(rules)), 170.0] if scored else [tall]
    figure = make_subplots(
        rows=rows, row_heights=heights, vertical_spacing=min(0.9, 84 / sum(heights))
    )
    said = [f"{len(bt.events):,} alerts", *_draw_alerts(figure, bt, rules)]
    name_panel(figure, 1, "Alerts by rule" + (", and labels (bars)" if scored else ""))
    figure.update_xaxes(title_text="Event time (UTC)", type="date", row=1, col=1)
    if scored:
        _draw_scores(figure, list(bt.scores.values()))
        name_panel(figure, 2, "Scores with 95 % intervals, beside chance")
        _draw_leads(figure, bt)
        name_panel(
            figure, 3, "Lead: moment of the label minus first alert, labels found"
        )
        some = next(iter(bt.scores.values()))
        said.append(
            f"intervals from {some.blocks} blocks of time"
            if some.blocks
            else "no intervals: labels too long for so short a span"
        )
    figure.update_layout(
        template=template(),
        title={"text": "Backtest", "subtitle": {"text": "; ".join(said) + "."}},
        height=240 + int(sum(heights)) + 84 * (rows - 1),
        margin={"t": 110, "l": 60, "r": 20, "b": 60},
        barmode="overlay",
    )
    return figure


def _moments(time_ns: NDArray[np.int64] | Sequence[int]) -> list[str]:
    return [str(x) for x in np.asarray(time_ns, "datetime64[ns]")]


def _lanes(
    rules: Sequence[str], tables: Sequence[pl.DataFrame]
) -> dict[tuple[str, str], str]:
    """Return a line for each rule and key; one for each rule where keys are many."""
    named = {
        (rule, key or "")
        for table in tables
        for rule, key in table.select("rule", "key").iter_rows()
    }
    every = sorted(named, key=lambda one: (rules.index(one[0]), one[1]))
    if len(every) > MAX_LANES:
        return {one: plain(one[0], LONGEST_NAME) for one in every}
    return {(rule, key): plain(f"{rule} {key}".strip(), 60) for rule, key in every}


def _draw_alerts(figure: go.Figure, bt: Backtest, rules: Sequence[str]) -> list[str]:
    import plotly.graph_objects as go

    alerts = bt.to_polars()
    tables = [alerts.select("rule", "key")]
    if bt.scores:
        table = bt.labelled()
        tables.append(table.select("rule", "key"))
    lanes = _lanes(rules, tables)
    if bt.scores:
        for known, name, color, width in (
            (True, "label with an alert", _FOUND, 20),
            (False, "label without one", _MISSED, 8),
        ):
            part = table.filter(table["first_alert"].is_not_null() == known)
            x: list[str | None] = []
            y: list[str | None] = []
            for one in part.iter_rows(named=True):
                ends = (one[name].isoformat(" ")[:19] for name in ("start", "end"))
                x += [*ends, None]
                y += [lanes[one["rule"], one["key"] or ""]] * 2 + [None]
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=y,
                    mode="lines",
                    name=f"{name} ({len(part)})",
                    line={"color": color, "width": width},
                    opacity=0.4,
                    hoverinfo="skip",
                ),
                row=1,
                col=1,
            )
    right = alerts["right"] if bt.scores else None
    said = []
    for good, name, color, symbol in (
        (True, "alert in a label" if bt.scores else "alert", _RIGHT, "circle"),
        (False, "alert in none", _WRONG, "x"),
    ):
        part = alerts
        if right is not None:
            part = alerts.filter(right == good)
        elif not good:
            continue
        step = -(-len(part) // MAX_MARKERS) if len(part) else 1
        drawn = part.gather_every(step)
        if step > 1:
            said.append(f"{len(drawn):,} of {len(part):,} drawn, evenly chosen")
        figure.add_trace(
            go.Scatter(
                x=[f"{x:%Y-%m-%d %H:%M:%S.%f}"[:23] for x in drawn["event_time"]],
                y=[lanes[one] for one in drawn.select("rule", "key").iter_rows()],
                customdata=[
                    [plain(key or "all keys"), plain(title)]
                    for key, title in drawn.select("key", "title").iter_rows()
                ],
                mode="markers",
                name=f"{name} ({len(part):,})",
                marker={"color": color, "symbol": symbol, "size": 7, "opacity": 0.75},
                hovertemplate="%{customdata[1]}<br>%{customdata[0]}<br>"
                "%{x|%Y-%m-%d %H:%M:%S.%L} UTC<extra></extra>",
            ),
            row=1,
            col=1,
        )
    names = list(dict.fromkeys(lanes.values()))[::-1]
    figure.update_yaxes(categoryarray=names, type="category", row=1, col=1)
    return said


def _draw_scores(figure: go.Figure, scores: Sequence[Score]) -> None:
    import plotly.graph_objects as go

    rows = [(one, name) for one in reversed(scores) for name in reversed(_SCORES)]
    y = [f"{plain(one.rule, LONGEST_NAME)}: {_NAMES[name]}" for one, name in rows]
    own = [getattr(one, name) for one, name in rows]
    figure.add_trace(
        go.Scatter(
            x=[x.value for x in own],
            y=y,
            mode="markers",
            name="the rule",
            marker={"color": LINES[0], "size": 10},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [x.high - x.value for x in own],
                "arrayminus": [x.value - x.low for x in own],
                "color": LINES[0],
            },
            hovertemplate="%{y} %{x:.3f}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    for name, symbol, color in (
        ("random", "line-ns-open", ALERTS[0]),
        ("always_on", "diamond-open", INK),
    ):
        text = {"random": "as many random alerts", "always_on": "always on"}[name]
        figure.add_trace(
            go.Scatter(
                x=[getattr(getattr(one, name), what) for one, what in rows],
                y=y,
                mode="markers",
                name=text,
                marker={
                    "symbol": symbol,
                    "color": color,
                    "size": 11,
                    "line": {"width": 2, "color": color},
                },
                hovertemplate=f"{text}: %{{x:.3f}}<extra></extra>",
            ),
            row=2,
            col=1,
        )
    figure.update_xaxes(range=[-0.02, 1.02], title_text="share", row=2, col=1)
    figure.update_yaxes(type="category", categoryarray=y, row=2, col=1)


def _draw_leads(figure: go.Figure, bt: Backtest) -> None:
    import plotly.graph_objects as go

    found = bt.labelled().drop_nulls("lead")
    seconds = found["lead"].dt.total_milliseconds().to_numpy() / 1000
    unit, name = _unit(float(np.abs(seconds).max(initial=1)))
    for number, rule in enumerate(bt.scores):
        figure.add_trace(
            go.Histogram(
                x=seconds[(found["rule"] == rule).to_numpy()] / unit,
                nbinsx=30,
                name=f"lead of {plain(rule, LONGEST_NAME)}",
                marker={"color": LINES[number % len(LINES)]},
                opacity=0.7,
                hovertemplate=f"%{{x}} {name}: %{{y}} labels<extra></extra>",
            ),
            row=3,
            col=1,
        )
    figure.update_xaxes(
        title_text=f"{name} before the moment (below 0: after it)", row=3, col=1
    )
    figure.update_yaxes(title_text="labels", row=3, col=1)


def _unit(longest_s: float) -> tuple[float, str]:
    for seconds, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if longest_s >= 2 * seconds:
            return seconds, name
    return 1, "seconds"


def heatmap(
    table: pl.DataFrame, x: str, y: str | None, metric: str, subtitle: str
) -> go.Figure:
    """Return a metric over one or two parameters, the rest at its best.

    Parameters
    ----------
    table
        A row for each setting, with the parameters and the metric as columns.
    x, y
        The parameters along the axes; without ``y`` there is one row of cells.
    metric
        What the cells show; of several settings in a cell the largest.
    subtitle
        What must be said with it.
    """
    import plotly.graph_objects as go

    columns = table[x].unique(maintain_order=True).to_list()
    rows = table[y].unique(maintain_order=True).to_list() if y else [None]
    cells = np.full((len(rows), len(columns)), np.nan)
    for one in table.iter_rows(named=True):
        at = rows.index(one[y] if y else None), columns.index(one[x])
        cells[at] = np.fmax(cells[at], np.nan if one[metric] is None else one[metric])
    trace = go.Heatmap(
        z=cells,
        x=[plain(value) for value in columns],
        y=[plain(value) for value in rows] if y else [""],
        colorscale="Cividis",
        texttemplate="%{z:.2f}",
        colorbar={"title": {"text": _NAMES.get(metric, metric)}},
        hovertemplate=f"{plain(x)} %{{x}}, {plain(y or '')} %{{y}}: "
        "%{z:.3f}<extra></extra>",
    )
    figure = go.Figure(trace)
    axis: dict[str, Any] = {"type": "category", "showgrid": False}
    figure.update_xaxes(title_text=plain(x), **axis)
    figure.update_yaxes(title_text=plain(y or ""), **axis)
    figure.update_layout(
        template=template(),
        title={
            "text": f"{_NAMES.get(metric, metric)} by {plain(x)}"
            + (f" and {plain(y)}" if y else ""),
            "subtitle": {"text": subtitle},
        },
        height=260 + 44 * len(rows),
        margin_t=130,
    )
    return figure


def past_and_next(folds: pl.DataFrame, metric: str) -> go.Figure:
    """Return a metric on the past and on what came next, fold by fold."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, text, color, dash in (
        ("past", "on the past, where it was chosen", LINES[2], "dot"),
        ("next", "on what came next", LINES[0], "solid"),
    ):
        figure.add_trace(
            go.Scatter(
                x=[text.replace("T", " ")[:19] for text in folds["until"]],
                y=folds[f"{name}_{metric}"].to_list(),
                name=text,
                mode="lines+markers",
                line={"color": color, "dash": dash},
                marker={"size": 9},
            )
        )
    shown = _NAMES.get(metric, metric)
    figure.update_xaxes(title_text="Chosen at (UTC)", type="date")
    figure.update_yaxes(title_text=shown, range=[-0.02, 1.02])
    figure.update_layout(
        template=template(),
        title={"text": f"{shown} of settings chosen on the past"},
        height=380,
    )
    return figure
