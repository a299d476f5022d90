"""What a pipeline is: a name, rules, input streams. Nothing runs here.

A pipeline module is a Python file that defines rules and, usually, one
`Pipeline`; without one, its rules run on the home streams of the event types
that they name.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cep.bus.keys import meta_key
from cep.clock import duration_ns
from cep.engine.ordering import InputStream
from cep.errors import CepError, UsageError, near_miss
from cep.rules.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

OnGap = Literal["stop", "skip"]
Level = Literal["fast", "safe", "ha"]

DEFAULT_OUT_OF_ORDERNESS = "1s"
DEFAULT_IDLE = "30s"
MAX_DEAD_LETTERS = 1_000_000


def stream(
    name: str,
    *,
    max_out_of_orderness: str | timedelta = DEFAULT_OUT_OF_ORDERNESS,
    idle: str | timedelta | None = DEFAULT_IDLE,
    deduplicate: bool = True,
    on_gap: OnGap | None = None,
) -> PipelineStream:
    """Name an input stream and say how its time is judged.

    Parameters
    ----------
    max_out_of_orderness
        How much older than the newest event an event may be; older ones are
        late. Larger waits longer, smaller loses stragglers.
    idle
        After how long a silence time goes on without this stream, which then
        trails what arrives elsewhere by so much. A stream never heard has been
        silent since the first entry of any stream. None: never, which is right
        when history is replayed in several parts. While it is silent the events of
        the others wait in memory, with no bound but the process's ``max_rss``; of
        100,000 the operator is told.
    deduplicate
        Whether an event with the id of an earlier one that is not below the
        stream's watermark is a copy, as of a publisher that tried again: it is
        counted as a duplicate, gets a row, and is not processed.
    on_gap
        What to do when entries were lost before they were read, as the stream
        was trimmed or deleted: "skip" writes a dead letter that says how many,
        and goes on; "stop" ends the pipeline. None: what the pipeline does.

    Examples
    --------
    >>> stream("market.events", max_out_of_orderness="250ms").idle_ns
    30000000000
    """
    return PipelineStream(
        name,
        duration_ns(max_out_of_orderness, allow_zero=True),
        None if idle is None else duration_ns(idle),
        deduplicate,
        None if on_gap is None else _checked_on_gap(on_gap),
    )


def _checked_on_gap(on_gap: OnGap) -> OnGap:
    if on_gap not in get_args(OnGap):
        raise UsageError(
            f"on_gap is {on_gap!r}.", f"Pass one of {', '.join(get_args(OnGap))}."
        )
    return on_gap


@dataclass(frozen=True, slots=True)
class PipelineStream(InputStream):
    """An input stream of a pipeline: how its time is judged, and its gaps."""

    on_gap: OnGap | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline's definition.

    Attributes
    ----------
    name
        Names its state in Redis; one process runs a name at a time.
    rules
        What to find. Outputs of one commit are put out by rule, in this order; which
        outputs of one moment share a commit depends on when their events were read.
        Their ids do not, and `cep.run_rules` sorts them.
    streams
        Where to look; empty: the home streams of the rules' event types.
    on_gap
        What to do when entries were lost before they were read; see `stream`.
    on_change
        What a rule that was changed begins with: "drop", nothing, as a new rule; or
        "replay 15m", what it would hold had it seen the last 15 minutes of event
        time (`cep.pipeline.replaying`). A mapping says so by rule; the others drop.
    durability
        "fast", "safe" or "ha" (`cep.pipeline.durability`): what is asked of the
        server, which is told at the start where it does not keep it.
    max_dead_letters
        About how many dead letters to keep; beyond that the oldest go for newer ones,
        and are counted. Their memory is that of what came in: 4 kB each at most, and
        some 300 bytes. None: all, until someone removes them.
    """

    name: str
    rules: tuple[Rule, ...]
    streams: tuple[InputStream, ...] = ()
    on_gap: OnGap = "skip"
    on_change: str | Mapping[str, str] = "drop"
    durability: Level | None = None
    max_dead_letters: int | None = MAX_DEAD_LETTERS

    def __init__(
        self,
        name: str,
        rules: Sequence[Rule],
        streams: Sequence[InputStream | str] = (),
        *,
        on_gap: OnGap = "skip",
        on_change: str | Mapping[str, str] = "drop",
        durability: Level | None = None,
        max_dead_letters: int | None = MAX_DEAD_LETTERS,
    ) -> None:
        if not rules or not all(isinstance(rule, Rule) for rule in rules):
            raise UsageError(
                f"Pipeline {name!r} has no rules, or something that is not a rule.",
                "Pass the functions decorated with @rule(...).",
            )
        inputs = tuple(stream(s) if isinstance(s, str) else s for s in streams)
        inputs = inputs or tuple(stream(s) for s in home_streams(rules))
        meta_key(name)  # raises if keys cannot hold the name
        _refuse_twins(name, "rules", [rule.name for rule in rules])
        _refuse_twins(name, "streams", [one.name for one in inputs])
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "rules", tuple(rules))
        object.__setattr__(self, "streams", inputs)
        object.__setattr__(self, "on_gap", _checked_on_gap(on_gap))
        object.__setattr__(self, "on_change", on_change)
        object.__setattr__(self, "durability", checked_level(durability))
        if max_dead_letters is not None and max_dead_letters < 1:
            raise UsageError(
                f"max_dead_letters of pipeline {name!r} is {max_dead_letters!r}.",
                "Give how many to keep, 1 at least, or None to keep all.",
            )
        object.__setattr__(self, "max_dead_letters", max_dead_letters)
        if not isinstance(on_change, str):
            _refuse_unknown(name, on_change, [rule.name for rule in rules])
        for rule in rules:
            self.replay_ns(rule.name)

    def on_gap_of(self, stream: InputStream) -> OnGap:
        """Return what to do when entries of a stream were lost."""
        own = stream.on_gap if isinstance(stream, PipelineStream) else None
        return own or self.on_gap

    def replay_ns(self, rule: str) -> int:
        """Return how much is replayed for a rule when it has changed; 0: nothing."""
        given = self.on_change
        said = given if isinstance(given, str) else given.get(rule, "drop")
        if said == "drop":
            return 0
        word, _, length = said.partition(" ")
        if word != "replay":
            raise UsageError(
                f"on_change is {said[:40]!r}.", "Write 'drop', or such as 'replay 15m'."
            )
        return duration_ns(length)


def _refuse_unknown(
    pipeline: str, on_change: Mapping[str, str], rules: Sequence[str]
) -> None:
    for name in on_change:
        if name not in rules:
            raise UsageError(
                f"on_change of pipeline {pipeline!r} names {name[:80]!r}, which is no "
                "rule of it.",
                f"Its rules are {', '.join(rules)}.",
            )


def checked_level(level: str | None) -> Level | None:
    """Return a level, or raise UsageError if that is none."""
    for known in get_args(Level):
        if level == known:
            found: Level = known
            return found
    if level is None:
        return None
    raise UsageError(
        f"durability is {level[:40]!r}.", f"Pass one of {', '.join(get_args(Level))}."
    )


def _refuse_twins(pipeline: str, what: str, names: Sequence[str]) -> None:
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UsageError(
            f"Pipeline {pipeline!r} has two {what} named {twins[0]!r}.",
            "Rename or remove one.",
        )


def home_streams(rules: Sequence[Rule]) -> list[str]:
    """Return the streams on which the event types of some rules live, sorted."""
    from cep.events.registry import registry

    return sorted({registry.get(t).stream for rule in rules for t in rule.sources})


def load_pipeline(path: str | Path) -> Pipeline:
    """Import a pipeline module from a file and return its pipeline.

    The module is the owner's code and runs as such.

    Raises
    ------
    UsageError
        If there is no such file, it cannot be imported, or it defines neither
        a pipeline nor rules, or several pipelines.
    """
    path = Path(path)
    if not path.is_file():
        beside = path.parent.glob("*.py") if path.parent.is_dir() else ()
        near = near_miss(path.name, [other.name for other in beside])
        hint = f"Did you mean {near[0]!r}?" if near else "Give a Python file."
        raise UsageError(f"There is no file {str(path)!r}.", hint)
    name = f"cep_pipeline_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{str(path)!r} is not a Python file.", "Give a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if f.filename == str(path)), 0)
        if isinstance(error, CepError):
            raise UsageError(f"{path}:{line}: {error}", "") from error
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line = error.lineno or line
        raise UsageError(
            f"{path}:{line}: {type(error).__name__}: {error}.",
            "Mend the module; it must import on its own.",
        ) from error
    found = list(
        {id(x): x for x in vars(module).values() if isinstance(x, Pipeline)}.values()
    )
    if len(found) > 1:
        raise UsageError(
            f"{path} defines {len(found)} pipelines.", "Keep one in a module."
        )
    if found:
        return found[0]
    rules = [x for x in vars(module).values() if isinstance(x, Rule)]
    if not rules:
        raise UsageError(
            f"{path} defines no rules.", "Decorate a function with @rule(...)."
        )
    return Pipeline(path.stem.replace("_", "-"), rules)
