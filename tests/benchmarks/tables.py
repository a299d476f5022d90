"""What the benchmarks print of what they measured."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.flatness import BYTES_PER_KEY
from tests.benchmarks.workload_costs import BATCH_OF_ONE_US, BATCH_SIZES


def heading(result: dict[str, Any]) -> str:
    known = result["machine"]
    return (
        f"{known['cpu']}, {known['cores']} cores; Python {known['python']}, numba "
        f"{known['numba']}, numpy {known['numpy']}, polars {known['polars']}\n"
        f"{result['ticks']:,} ticks and {result['ai']:,} AI events, seed "
        f"{result['seed']}, volatility {result['volatility']:g}, batches of "
        f"{result['batch']:,}; us of CPU per event, least of {result['repeat']} runs"
    )


_HEADS = (
    ("matches", 9),
    ("exact", 5),
    ("us", 6),
    ("ingest", 6),
    ("events/s", 8),
    ("goal", 6),
    ("of it", 6),
    ("loop", 6),
    ("times", 6),
)


def workloads(table: dict[str, Any]) -> str:
    heads = [*_HEADS, ("polars", 6), ("times", 6)]
    lines = ["", "     " + " ".join(f"{head:>{width}}" for head, width in heads)]
    for name, row in table.items():
        line = (
            f"{name:4} {row['answer'][0]:9,} {'yes' if row['exact'] else 'NO':>5} "
            f"{row['us']:6.3f} {row['ingest_us']:6.3f} "
            f"{row['events_per_second'] / 1e6:6.1f} M {row['goal_us']:6.3f} "
            f"{row['of_goal']:6.2f} {row['loop_us']:6.3f} {row['times_loop']:6.1f} "
        )
        if "polars_us" in row:
            line += f"{row['polars_us']:6.3f} {row['times_polars']:6.2f}"
        lines.append(line)
    for name, row in table.items():
        if row.get("polars_differs"):
            count = row["polars_answer"][0]
            lines.append(f"{name}: polars {row['polars_differs']} ({count:,} matches)")
        if row["loop_differs"]:
            lines.append(
                f"{name}: the loop by hand rounds; {row['loop_differs']} matches differ"
            )
    return "\n".join(lines)


def batches(table: dict[str, Any]) -> str:
    lines = [
        "",
        "us per event by batch size: ours / loop given lists / loop given our columns",
        "       " + "".join(f"{size:>21,}" for size in BATCH_SIZES),
    ]
    for name, rows in table.items():
        cells = [
            f"{row['us']:8.3f}{row['loop_us']:6.2f}{row['loop_columns_us']:7.2f}"
            for row in rows.values()
        ]
        lines.append(f"{name:5}  " + "".join(cells))
    slower = [
        f"{name} at {size:,}"
        for name, rows in table.items()
        for size, row in rows.items()
        if row["us"] > row["loop_columns_us"]
    ]
    lines.append(f"slower than the loop given our columns: {', '.join(slower) or '-'}")
    worst = max(rows[1]["us"] for rows in table.values())
    lines.append(f"a batch of one: {worst:.1f} us at most (goal {BATCH_OF_ONE_US:g})")
    return "\n".join(lines)


def flatness(result: dict[str, Any]) -> str:
    """Return the cost by window length, number of rules and number of keys."""
    lines = ["", "us per event, by length of the window (avg, std, min, max, count)"]
    lines.append("  ".join(f"{k} {us:.3f}" for k, us in result["window"].items()))
    lines.append("us per event, by number of rules")
    for kind, costs in result["rules"].items():
        what = "with the same windows" if kind == "shared" else "each with its own"
        cells = "  ".join(f"{n}: {us:.3f}" for n, us in costs.items())
        least, most = min(costs), max(costs)
        added = (costs[most] - costs[least]) / (most - least)
        lines.append(f"{what}: {cells}; a rule adds {added:.3f}")
    lines.append("by number of keys, a rule with a window and a pattern")
    for n, row in result["keys"].items():
        line = (
            f"{n:>9,} keys: {row['us']:.3f} us an event, {row['ingest_us']:.3f} of it "
            f"to take in, {row['first_us']:.2f} for a key's first"
        )
        if n >= 10_000:
            line += f"; {row['rss_per_key']:,.0f} bytes a key (goal {BYTES_PER_KEY:,})"
        if n >= 10_000 and "state_per_key" in row:
            line += f", {row['state_per_key']:,.0f} stored"
        lines.append(line)
    return "\n".join(lines)


def worst_case(result: dict[str, Any]) -> str:
    """Return what each policy does about every subset of equal events."""
    cap = f"{result['cap']:,} partial matches"
    lines = ["", f"every subset of {result['events']:,} equal events, at most {cap}"]
    for policy, row in result.items():
        if isinstance(row, dict):
            lines.append(
                f"{policy:21} {row['us']:9,.0f} us an event, {row['rss_mb']:.0f} MB, "
                f"{row['live']:,} live, {row['dropped']:,} dropped, {row['matches']:,} "
                f"matches, {row['dropped_matches']:,} dropped"
                + (", tripped" if row["tripped"] else "")
            )
    return "\n".join(lines)


def startup(row: dict[str, Any]) -> str:
    """Return what compiling and starting cost."""
    return (
        f"\ncompiling from nothing {row['compile_s']:.1f} s of CPU (goal "
        f"{row['compile_goal_s']:g}), start {row['start_s']:.2f} s (goal "
        f"{row['start_goal_s']:g}); kernels compiled after the warm-up: "
        f"{row['compiled_later']} of {row['kernels'] + row['compiled_later']}"
    )


def trades(result: dict[str, Any]) -> str:
    """Return the costs on real trades."""
    lines = ["", "real trades: us per event, ours / loop (matches)"]
    for file, rows in result.items():
        cells = [
            f"{name} {row['us']:.3f} / {row['loop_us']:.3f} ({row['answer'][0]:,})"
            + ("" if row["exact"] else " WRONG")
            + (f" loop differs in {row['loop_differs']}" if row["loop_differs"] else "")
            for name, row in rows.items()
        ]
        lines.append(f"{file}: " + ", ".join(cells))
    return "\n".join(lines)
