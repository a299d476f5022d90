"""Streams as they grow, in a notebook: candles, alerts, how far behind the picture is.

A `Monitor` takes what came since its last look, keeps as much of it as it draws, and
draws. Looks are a fixed time apart. Those that were due while another one took too
long are dropped and counted, and so the picture is late rather than the kernel busy.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from cep.clock import Clock, SystemClock, duration_ns, format_duration
from cep.errors import ConnectionFailedError, UsageError
from cep.frames.load import load
from cep.reporting.markup import Markup, element, joined
from cep.reporting.notebook import begin_pictures, picture_data
from cep.style import INK, LINES, marker_style, plain, template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    import plotly.graph_objects as go

NOTIFICATIONS: Final = "notification.events"
MOST_ROWS: Final = 200_000
ROWS_A_LOOK: Final = 50_000
MOST_ALERTS: Final = 200
_MS: Final = 1_000_000
_HOVER: Final = (
    "<b>%{customdata[0]}</b> (%{customdata[1]})<br>%{customdata[2]}<br>"
    "%{x|%H:%M:%S.%L} UTC<extra></extra>"
)


@dataclass(slots=True)
class Status:
    """How a monitor is doing.

    Attributes
    ----------
    events, alerts, bad
        What was read so far; ``bad`` entries are no events.
    behind_ms
        How much later the newest entry of the stream arrived than the last one
        read: 0 when the picture is up to date.
    looks, dropped
        How often it looked, and how many looks were left out because another one
        took too long.
    forgotten
        Rows of the span that were left out because it holds too many.
    problem
        Why the last look failed; the next one tries again.
    """

    events: int = 0
    alerts: int = 0
    bad: int = 0
    behind_ms: int = 0
    looks: int = 0
    dropped: int = 0
    forgotten: int = 0
    problem: str = ""

    def __str__(self) -> str:
        behind = format_duration(self.behind_ms * _MS)
        parts = [
            f"{self.events:,} events",
            f"{self.alerts:,} alerts",
            f"{behind} behind" if self.behind_ms else "up to date",
            f"{self.looks:,} looks, {self.dropped:,} dropped",
        ]
        if self.bad:
            parts.append(f"{self.bad:,} entries are no events")
        if self.forgotten:
            parts.append(f"{self.forgotten:,} rows too many for the span")
        return "; ".join(parts) + (f". {self.problem}" if self.problem else ".")


@dataclass(slots=True)
class _Tail:
    """The newest rows of one stream, bounded in time and number."""

    stream: str
    types: str | list[str]
    columns: list[str] | None
    start: str | None = None
    after: str | None = None
    rows: pl.DataFrame | None = None
    behind_ms: int = 0

    def take(self, url: str | None, most: int) -> tuple[int, int]:
        """Read on; returns how many events came, and how many entries were none."""
        end = _newest_entry(url, self.stream)
        if end is None or (self.after is not None and end == self.after):
            self.behind_ms = 0
            return 0, 0
        found, bad = load(
            self.stream,
            url=url,
            start=self.start if self.after is None else f"({self.after}",
            types=self.types,
            columns=self.columns,
            limit=most,
            with_bad=True,
        )
        if len(found) == most:
            self.after = str(found["entry_id"][-1])
        else:  # entries of other types may be the last ones
            self.after = max((end, *found["entry_id"].tail(1)), key=_as_numbers)
        self.behind_ms = max(0, _as_numbers(end)[0] - _as_numbers(self.after)[0])
        parts = [found] if self.rows is None else [self.rows, found]
        self.rows = pl.concat(parts, how="vertical_relaxed")
        return len(found), len(bad)

    def keep(self, span_ns: int, most: int) -> int:
        """Forget what is older than the span; returns how much else had to go."""
        rows = self.rows
        if rows is None or rows.is_empty():
            return 0
        newest: Any = rows["event_time"].max()
        rows = rows.filter(
            pl.col("event_time") > newest - pl.duration(nanoseconds=span_ns)
        )
        self.rows = rows.tail(most)
        return max(0, len(rows) - most)


@dataclass(slots=True)
class Monitor:
    """Candles of one value of a stream, with alerts, as they come.

    Parameters
    ----------
    stream
        The stream's key.
    url
        The server; by default that of ``CEP_REDIS_URL``.
    type, value
        The event type, and the number in it that candles are made of.
    where
        Which of these events: field to value, such as
        ``{"symbol": "BTCUSDT", "venue": "spot"}``.
    alerts
        The stream with derived events; None for no alerts. An alert is drawn if
        its key names every value of ``where``.
    candle, span
        How long a candle is, and how much the picture shows, in event time.
    refresh
        The time from one look to the next.
    start
        Where to begin, as for `cep.load`; by default with what comes from now on.
    unit
        Of the value, for the axis.
    clock
        For tests.

    A span holds at most 200,000 rows, and a look takes at most 50,000: what does
    not fit is counted in `status`.

    Examples
    --------
    In a notebook, for ten minutes or until the cell is interrupted::

        Monitor(where={"symbol": "BTCUSDT", "venue": "spot"}).watch("10m")
    """

    stream: str = "market.events"
    url: str | None = None
    type: str = "market.trade"
    value: str = "price"
    where: Mapping[str, str] = field(default_factory=dict)
    alerts: str | None = NOTIFICATIONS
    candle: str | timedelta = "1s"
    span: str | timedelta = "2m"
    refresh: str | timedelta = "500ms"
    start: str | None = None
    unit: str = ""
    clock: Clock = field(default_factory=SystemClock)
    status: Status = field(default_factory=Status)
    _values: _Tail = field(init=False)
    _alerts: _Tail | None = field(init=False, default=None)
    _begun: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if duration_ns(self.span) < 2 * duration_ns(self.candle):
            raise UsageError(
                f"span {self.span} holds less than two candles of {self.candle}.",
                "Choose a longer span, or shorter candles.",
            )
        columns = [*dict.fromkeys((self.value, *self.where))]
        self._values = _Tail(self.stream, self.type, columns, self.start)
        if self.alerts is not None:
            wanted = "trend.alert.generated"
            self._alerts = _Tail(self.alerts, wanted, None, self.start)

    def look(self) -> Status:
        """Take what came since the last look; returns the `status`."""
        status = self.status
        status.looks += 1
        try:
            if not self._begun:
                self._begin()
            came, bad = self._values.take(self.url, ROWS_A_LOOK)
            if self._alerts is not None:
                found, wrong = self._alerts.take(self.url, ROWS_A_LOOK)
                status.alerts += found
                bad += wrong
            status.problem = ""
        except ConnectionFailedError as error:
            status.problem = str(error)
            return status
        status.events += came
        status.bad += bad
        status.behind_ms = self._values.behind_ms
        span = duration_ns(self.span)
        status.forgotten += self._values.keep(span, MOST_ROWS)
        if self._alerts is not None:
            status.forgotten += self._alerts.keep(span, MOST_ALERTS)
        return status

    def _begin(self) -> None:
        """Set where reading starts."""
        for tail in (self._values, self._alerts):
            if tail is None:
                continue
            if self.start is None:
                tail.after = _newest_entry(self.url, tail.stream)
        self._begun = True

    def looks(self, seconds: float | None = None) -> Iterator[Status]:
        """Look again and again, each time at the next moment that is due.

        Parameters
        ----------
        seconds
            How long; None for ever.

        Yields
        ------
        The status after each look. The time that the caller takes to draw counts:
        a moment that has passed by then is dropped.
        """
        every = duration_ns(self.refresh)
        begun = due = self.clock.monotonic_ns()
        while True:
            yield self.look()
            due += every
            late = self.clock.monotonic_ns() - due
            if late > 0:
                skipped = -(-late // every)
                self.status.dropped += skipped
                due += skipped * every
            if seconds is not None and due - begun > seconds * 1e9:
                return
            self.clock.sleep((due - self.clock.monotonic_ns()) / 1e9)

    def candles(self) -> pl.DataFrame:
        """Return ``time``, ``open``, ``high``, ``low``, ``close``, ``events``.

        One row per candle that has an event, of event time; ``time`` is its begin,
        and events of one time count in order of arrival.
        """
        rows = self._values.rows
        if rows is None:
            return _NO_CANDLES
        wanted = [pl.col(name).cast(pl.String) == x for name, x in self.where.items()]
        value = pl.col(self.value).cast(pl.Float64)
        return (
            rows.filter(value.is_finite(), *wanted)
            .sort("event_time", maintain_order=True)
            .group_by(
                time=pl.col("event_time").dt.truncate(
                    format_duration(duration_ns(self.candle))
                ),
                maintain_order=True,
            )
            .agg(
                open=value.first(),
                high=value.max(),
                low=value.min(),
                close=value.last(),
                events=pl.len(),
            )
        )

    def alert_table(self) -> pl.DataFrame:
        """Return the alerts within the span: ``event_time``, ``rule``, ``key``, ...

        With ``severity`` and ``title``; the newest last.
        """
        rows = None if self._alerts is None else self._alerts.rows
        if rows is None:
            return pl.DataFrame(schema=dict.fromkeys(_ALERT_COLUMNS, pl.String))
        return rows.select(
            "event_time", pl.col(_ALERT_COLUMNS[1:]).cast(pl.String)
        ).sort("event_time", maintain_order=True)

    def plot(self) -> go.Figure:
        """Return the picture: candles, and alerts where they belong."""
        import plotly.graph_objects as go

        candles = self.candles()
        figure = go.Figure()
        figure.add_trace(
            go.Candlestick(
                x=_times(candles["time"]),
                **{part: candles[part].to_list() for part in _PARTS},
                name=plain(self.value),
                increasing={"line": {"color": LINES[0]}, "fillcolor": "white"},
                decreasing={"line": {"color": INK}, "fillcolor": INK},
            )
        )
        for number, ((rule,), part) in enumerate(
            self._own_alerts().group_by("rule", maintain_order=True)
        ):
            figure.add_trace(
                go.Scatter(
                    x=_times(part["event_time"]),
                    y=_closes_at(candles, part["event_time"]),
                    mode="markers",
                    marker=marker_style(number),
                    name=f"{plain(rule)} ({len(part):,})",
                    customdata=[
                        [plain(x) for x in row]
                        for row in part.select("rule", "severity", "title").rows()
                    ],
                    hovertemplate=_HOVER,
                )
            )
        what = " ".join(self.where.values()) or self.stream
        candle = format_duration(duration_ns(self.candle))
        unit = f" ({plain(self.unit)})" if self.unit else ""
        figure.update_layout(
            template=template(),
            title={
                "text": plain(f"{what}: {self.value}"),
                "subtitle": {
                    "text": f"candles of {candle}, hollow when rising; "
                    f"{plain(str(self.status))}"
                },
            },
            xaxis={"title": "Event time (UTC)", "rangeslider": {"visible": False}},
            yaxis={"title": f"{plain(self.value)}{unit}", "tickformat": ","},
            height=420,
            showlegend=True,
            # What the reader has zoomed to stays while the picture is replaced.
            uirevision="monitor",
        )
        return figure

    def _own_alerts(self) -> pl.DataFrame:
        """Return the alerts that are about what is drawn."""
        table = self.alert_table()
        parts = pl.col("key").fill_null("").str.split("/")
        return table.filter([parts.list.contains(x) for x in self.where.values()])

    def watch(self, for_: str | timedelta | None = None, *, rows: int = 8) -> None:
        """Show the picture and the last alerts below the cell, and keep both new.

        Ends after ``for_``, or when the cell is interrupted, and leaves the last
        picture. The status line says how far behind it is and how many looks were
        dropped.

        Parameters
        ----------
        for_
            How long; None until the cell is interrupted.
        rows
            How many alerts the table holds.

        Raises
        ------
        UsageError
            Outside a notebook; use `looks` and `plot` there.
        """
        ipython: Any = sys.modules.get("IPython")
        if ipython is None or ipython.get_ipython() is None:
            raise UsageError(
                "There is no notebook to draw in.",
                "Call watch() in one, or go through looks() and use plot().",
            )
        from cep.bus.warmup import warm_up

        show = ipython.display.display
        seconds = None if for_ is None else duration_ns(for_) / 1e9
        table = picture = None
        begin_pictures()
        warm_up()  # compiling is not to hold up the first look
        with contextlib.suppress(KeyboardInterrupt):
            for _ in self.looks(seconds):
                drawn = picture_data(self.plot())
                told = {"text/html": self.table_html(rows)}
                if picture is None or table is None:
                    picture = show(drawn, raw=True, display_id=True)
                    table = show(told, raw=True, display_id=True)
                else:
                    picture.update(drawn, raw=True)
                    table.update(told, raw=True)

    def table_html(self, rows: int = 8) -> Markup:
        """Return the newest alerts as a table, the newest first."""
        last = self.alert_table().tail(rows).reverse()
        head = element("tr", *(element("th", name) for name in _ALERT_COLUMNS))
        body = [
            element("tr", *(element("td", "" if x is None else x) for x in row))
            for row in last.with_columns(
                pl.col("event_time").cast(pl.String).str.slice(11, 12)
            ).rows()
        ]
        return element(
            "div", element("p", self.status), element("table", head, joined(body))
        )


_ALERT_COLUMNS: Final = ("event_time", "rule", "key", "severity", "title")
_PARTS: Final = ("open", "high", "low", "close")
_NO_CANDLES: Final = pl.DataFrame(
    schema={
        "time": pl.Datetime("ms", "UTC"),
        **dict.fromkeys(_PARTS, pl.Float64),
        "events": pl.UInt32,
    }
)


def _times(times: pl.Series) -> list[str]:
    """Return times as plotly shows them in UTC."""
    return [str(x) for x in times.dt.epoch("ms").to_numpy().astype("datetime64[ms]")]


def _closes_at(candles: pl.DataFrame, times: pl.Series) -> list[float | None]:
    """Return the last close at or before each time."""
    begins = candles["time"].dt.epoch("ms").to_numpy()
    closes = candles["close"].to_list()
    places = np.searchsorted(begins, times.dt.epoch("ms").to_numpy(), "right") - 1
    return [closes[at] if at >= 0 else None for at in places.tolist()]


def _as_numbers(entry: str) -> tuple[int, int]:
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq)


def _newest_entry(url: str | None, stream: str) -> str | None:
    from cep.bus.connection import clear_errors, connect_redis

    with connect_redis(url) as client, clear_errors(client):
        last: Any = client.execute_command("XREVRANGE", stream, "+", "-", "COUNT", "1")
    return last[0][0].decode() if last else None
