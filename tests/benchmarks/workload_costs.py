"""What the questions cost: ours, the loop by hand, polars; and by batch size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cep.engine.operator import Operator
from tests.benchmarks.loops import FIELDS, LOOPS, lists
from tests.benchmarks.measure import best
from tests.benchmarks.questions import QUESTIONS, answer
from tests.benchmarks.workloads import GOALS_US, feed, finish, pairs, rules, step

if TYPE_CHECKING:
    from cep.events.columns import EventColumns
    from cep.rules import Rule
    from tests.benchmarks.questions import Constants, Pairs
    from tests.benchmarks.streams import Stream

BATCH = 20_000
BATCH_SIZES = (1, 3, 10, 30, 100, 1000, 10_000, 100_000)
BATCH_OF_ONE_US = 8.0


def cuts(columns: EventColumns, size: int) -> range:
    """Return where batches of ``size`` begin."""
    return range(0, len(columns), size)


def question_cost(
    name: str, rule: Rule, stream: Stream, c: Constants, repeat: int
) -> dict[str, Any]:
    """Return ours and the loop's cost per event in us, and whether both are exact.

    Ours is from columns in memory to matches in memory, ``ingest`` the part of it
    that makes engine rows of columns. The loop is given lists made beforehand.
    """
    n, columns = len(stream), stream.columns()
    expected = sorted(QUESTIONS[name](stream, c))
    got = feed(Operator([rule]), columns, cuts(columns, BATCH))
    batches = [columns.slice(a, a + BATCH) for a in cuts(columns, BATCH)]

    def run(operator: Operator) -> list[object]:
        outputs = [step(operator, batch) for batch in batches]
        return [*outputs, finish(operator, columns)]

    def take_in(operator: Operator) -> None:
        for batch in batches:
            operator.ingest(batch, 0)

    fields, loop = lists(stream, name), LOOPS[name]
    by_hand = loop(*fields, c)
    if name == "W1":
        by_hand = [(seq, seq) for seq, _, _ in by_hand]
    return {
        "answer": answer(expected),
        "exact": sorted(got) == expected,
        "us": best(run, repeat, lambda: Operator([rule])) / n * 1e6,
        "ingest_us": best(take_in, repeat, lambda: Operator([rule])) / n * 1e6,
        "loop_us": best(lambda _: loop(*fields, c), repeat) / n * 1e6,
        "loop_differs": len(set(by_hand) ^ set(expected)),
    }


def workloads(
    stream: Stream,
    c: Constants,
    repeat: int,
    published: dict[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Return the cost of every question beside its peers and its goal."""
    from tests.benchmarks.frames import DIFFERENCES, FRAMES, frame

    table = {}
    events = frame(stream)
    for name, rule in rules(c).items():
        row = question_cost(name, rule, stream, c, repeat)
        known = published.get(name, ())
        row["exact"] &= row["answer"][: len(known)] == known
        row["goal_us"] = GOALS_US[name]
        row["events_per_second"] = 1e6 / row["us"]
        row["of_goal"] = row["us"] / row["goal_us"]
        row["times_loop"] = row["loop_us"] / row["us"]
        if name in FRAMES:
            query = FRAMES[name]
            hits = query(events, c)
            seconds = best(lambda _, query=query: query(events, c), repeat)
            row["polars_us"] = seconds / len(stream) * 1e6
            row["polars_answer"] = (
                hits.height,
                int(hits["start"].sum()),
                int(hits["end"].sum()),
            )
            row["polars_differs"] = DIFFERENCES.get(name)
            row["times_polars"] = row["polars_us"] / row["us"]
        table[name] = row
    return table


def batch_sizes(
    stream: Stream, c: Constants, loop_us: dict[str, float], steps: int
) -> dict[str, Any]:
    """Return each question's cost per event, by batch size.

    Of ``steps`` batches each, as far as the stream goes, after a beginning that
    fills the windows; the least of three runs. The loop costs its time per event
    and, once a batch, its call; ``loop_columns_us`` is what it costs where it is
    given the same columns as we are and has to make lists of them.
    """
    table = {}
    start = min(len(stream) // 2, 200_000)
    for name, rule in rules(c).items():
        table[name] = {}
        nothing: list[list] = [[] for _ in FIELDS[name]]
        call = best(
            lambda _, name=name, nothing=nothing: [
                LOOPS[name](*nothing, c) for _ in range(1000)
            ],
            5,
        )
        answers: dict[int, Pairs] = {}
        for size in BATCH_SIZES:
            end = min(len(stream), start + min(size * steps, 500_000))
            head = stream.head(end)
            if end not in answers:
                answers[end] = sorted(QUESTIONS[name](head, c))
            row, found = _batched(name, rule, head, start, size)
            row["exact"] = sorted(found) == answers[end]
            row["loop_us"] = loop_us[name] + call / 1000 * 1e6 / size
            row["loop_columns_us"] = row["loop_us"] + row.pop("lists_us")
            table[name][size] = row
    return table


def _batched(
    name: str, rule: Rule, stream: Stream, start: int, size: int
) -> tuple[dict[str, Any], Pairs]:
    columns = stream.columns()
    begins = range(start, len(columns), size)
    batches = [columns.slice(a, a + size) for a in begins]
    events = len(columns) - start
    least, outputs = float("inf"), []
    for _ in range(3):
        operator = Operator([rule])
        outputs = [step(operator, columns.slice(0, start))]
        begin = time.process_time()
        outputs += [step(operator, batch) for batch in batches]
        least = min(least, time.process_time() - begin)
        outputs.append(finish(operator, columns))

    def make_lists(_: object) -> None:
        for batch in batches:
            for field in FIELDS[name]:
                if field in batch.fields:
                    batch.fields[field].values.tolist()
                else:
                    (batch.time_ms if field == "time_ms" else batch.type_code).tolist()

    row = {
        "us": least / events * 1e6,
        "lists_us": best(make_lists, 3) / events * 1e6,
    }
    return row, pairs(outputs)
