"""All exceptions of ``cep``.

Each one derives from `CepError` and from the builtin it refines, takes plain
arguments, keeps them as attributes and says three things in its text: what is
wrong, the value that was, what to do. All of them survive pickling between
worker processes.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHOWN = 80  # characters of an offending value that a message repeats


def near_miss(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return the known names that look like a slip for ``name``, best first.

    >>> near_miss("prcie", ["price", "quantity", "symbol"])
    ['price']
    >>> near_miss("whatever", ["price", "quantity"])
    []
    """
    return difflib.get_close_matches(name, sorted(set(known)), n=limit, cutoff=0.6)


def shown(value: object) -> str:
    """Return a value as messages show it: its repr cut to 80 characters, its type.

    >>> shown("abc")
    "'abc' (str)"
    >>> shown(None)
    'null'
    """
    if value is None:
        return "null"
    try:
        text = repr(value)
    except Exception:  # a foreign __repr__ may do anything
        text = "a value that cannot be shown"
    if len(text) > SHOWN:
        text = text[: SHOWN - 3] + "..."
    return f"{text} ({type(value).__name__})"


class Problem(NamedTuple):
    """One thing wrong with a payload.

    ``path`` is where (``data.price``, ``data.channels[0]``), ``value`` the
    offending value as text (see `shown`; "missing" if there is none),
    ``allowed`` what may stand there, ``hint`` a guess at the slip or "".
    """

    path: str
    value: str
    allowed: str
    missing: bool = False
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path} is {self.value}, allowed: {self.allowed}"
        return f"{text} ({self.hint})" if self.hint else text


def _choice(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


class CepError(Exception):
    """Base of every error that ``cep`` raises on purpose."""

    # OSError and friends rebuild themselves from errno and file name; plain
    # construction from the arguments works for all of ours.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args


class CepWarning(UserWarning):
    """Something went well that is likely not what was meant."""


class UsageError(CepError, ValueError):
    """A user's mistake; the command line shows it as one line and exits with 2."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class MissingExtraError(CepError, ImportError):
    """A library is not installed that an extra of the package brings."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(library, extra)
        self.library, self.extra = library, extra

    def __str__(self) -> str:
        return (
            f"{self.library} is not installed. It comes with the extra "
            f"{self.extra}: pip install 'cep-kit[{self.extra}]'"
        )


class InvalidDurationError(CepError, ValueError):
    """A value that is not a duration, such as a bare number."""

    def __init__(self, value: object, problem: str) -> None:
        # An arbitrary object may not pickle: keep what a message needs.
        text = value if isinstance(value, str) and len(value) < SHOWN else shown(value)
        super().__init__(text, problem)
        self.value, self.problem = text, problem

    def __str__(self) -> str:
        return (
            f"{self.value!r} is not a duration: {self.problem}. Write a number and "
            "its unit, such as '250ms', '60s', '5m', '1h30m' or '2d', or pass a "
            "datetime.timedelta."
        )


class InvalidIdError(CepError, ValueError):
    """A text that is not a ULID in its canonical form."""

    def __init__(self, value: str, problem: str) -> None:
        super().__init__(value[:SHOWN], problem)
        self.value, self.problem = value[:SHOWN], problem

    def __str__(self) -> str:
        return (
            f"{self.value!r} is not an event id: {self.problem}. An id is a ULID: "
            "26 upper-case Crockford base-32 characters, the first at most '7'. "
            "Leave the id out to have one made."
        )


class InvalidPayloadError(CepError, ValueError):
    """An event that may not be published; ``problems`` holds each `Problem`."""

    def __init__(self, event_type: str, problems: Iterable[Sequence[Any]]) -> None:
        kept = tuple(Problem(*problem) for problem in problems)
        super().__init__(event_type, kept)
        self.event_type, self.problems = event_type, list(kept)

    def __str__(self) -> str:
        what = "; ".join(str(problem) for problem in self.problems)
        return f"{self.event_type} is not valid: {what}. Nothing was written."


class UnknownEventTypeError(CepError, LookupError):
    """An event type that nobody registered."""

    def __init__(self, event_type: str, near: Sequence[str] = ()) -> None:
        super().__init__(event_type, tuple(near))
        self.event_type, self.near = event_type, list(near)

    def __str__(self) -> str:
        meant = f" Did you mean {_choice(self.near)}?" if self.near else ""
        return (
            f"Event type {self.event_type[:SHOWN]!r} is not known.{meant} Register "
            "your own types with cep.events.register(type, stream=...) in a module "
            "that is imported first; cep.events.registry.names() lists the known ones."
        )


class UnknownEventVersionError(CepError, LookupError):
    """A known event type in a version that nobody registered."""

    def __init__(self, event_type: str, version: int, known: Sequence[int]) -> None:
        super().__init__(event_type, version, tuple(known))
        self.event_type, self.version, self.known = event_type, version, list(known)

    def __str__(self) -> str:
        known = ", ".join(str(version) for version in self.known)
        return (
            f"{self.event_type} has no version {self.version}; known: {known}. "
            "Register that version, or write one of the known ones."
        )


class RegistrationError(CepError, ValueError):
    """A payload model that cannot be registered under this name and version."""

    def __init__(self, event_type: str, version: int, problem: str) -> None:
        super().__init__(event_type, version, problem)
        self.event_type, self.version, self.problem = event_type, version, problem

    def __str__(self) -> str:
        return (
            f"{self.event_type} version {self.version} cannot be registered: "
            f"{self.problem}"
        )


class WireError(CepError, ValueError):
    """A stream entry that is not one of our events; a reader quarantines it.

    ``reason`` is one of `cep.events.reasons.Reason`, ``detail`` says what was
    found and what is allowed.
    """

    def __init__(
        self, reason: str, detail: str, stream: str = "", entry_id: str = ""
    ) -> None:
        super().__init__(reason, detail, stream, entry_id)
        self.reason, self.detail = reason, detail
        self.stream, self.entry_id = stream, entry_id

    def __str__(self) -> str:
        where = f"entry {self.entry_id} of {self.stream}: " if self.entry_id else ""
        return f"{where}{self.reason}: {self.detail}"


class RuleError(CepError, ValueError):
    """A rule that cannot mean anything; raised when its module is imported."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(where, problem, remedy)
        self.where, self.problem, self.remedy = where, problem, remedy

    def __str__(self) -> str:
        problem, remedy = self.problem.rstrip("."), self.remedy
        remedy = remedy[:1].upper() + remedy[1:]
        return f"{self.where}: {problem}. {remedy}".strip()


class UnknownFieldError(RuleError, LookupError):
    """A rule reads a payload field that its event types do not have."""

    def __init__(
        self,
        field: str,
        event_types: Sequence[str],
        near: Sequence[str] = (),
        known: Sequence[str] = (),
        where: str = "",
    ) -> None:
        of = " and ".join(event_types)
        meant = f"Did you mean {_choice(near)}? " if near else ""
        fields = f"Its fields are: {', '.join(known)}." if known else ""
        super().__init__(
            where or "rule", f"{of} has no field {field!r}.", (meant + fields).strip()
        )
        self.args = (field, tuple(event_types), tuple(near), tuple(known), where)
        self.field, self.event_types = field, list(event_types)
        self.near, self.known = list(near), list(known)


class ConnectionFailedError(CepError, ConnectionError):
    """The server cannot be reached or does not let us in.

    ``url_masked`` must already be without credentials, and so must ``cause``.
    """

    def __init__(
        self, url_masked: str, cause: BaseException | str, remedy: str
    ) -> None:
        text = str(cause)
        # Not super(): OSError takes two or three arguments for errno and file.
        Exception.__init__(self, url_masked, text, remedy)
        self.url_masked, self.cause, self.remedy = url_masked, text, remedy

    def __str__(self) -> str:
        cause = self.cause.rstrip(".")
        return f"Cannot use Redis at {self.url_masked}: {cause}. {self.remedy}".strip()


class AccessDeniedError(ConnectionFailedError):
    """The server is there and does not let us in: login, rights or TLS.

    Waiting does not help, other than with other connection errors.
    """


class MemoryLimitError(CepError, MemoryError):
    """The process has more memory than it may; all it did is committed."""

    def __init__(self, used_bytes: int, limit_bytes: int) -> None:
        super().__init__(used_bytes, limit_bytes)
        self.used_bytes, self.limit_bytes = used_bytes, limit_bytes

    def __str__(self) -> str:
        return (
            f"The process has {self.used_bytes / 1e6:,.0f} MB of memory, allowed: "
            f"{self.limit_bytes / 1e6:,.0f} MB. All it did is committed; start it "
            "again, with a larger --max-rss or with limits on windows and matches."
        )


class EmbeddedServerError(CepError, RuntimeError):
    """The embedded server did not start or did not stay up."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class OutOfOrderError(CepError, ValueError):
    """An event is older than one already taken in."""

    def __init__(self, where: str, time_ns: int, last_ns: int) -> None:
        super().__init__(where, time_ns, last_ns)
        self.where, self.time_ns, self.last_ns = where, time_ns, last_ns

    def __str__(self) -> str:
        return (
            f"{self.where}: event time {self.time_ns} ns is "
            f"{self.last_ns - self.time_ns} ns before the last one taken in "
            f"({self.last_ns} ns). Sort the input by event time, or put a "
            "watermark with an out-of-orderness bound in front of this step."
        )


class FencedError(CepError, RuntimeError):
    """Another process has taken over this pipeline; this one must stop.

    ``who`` says which process that is; ``ours`` and ``theirs`` are owner tokens.
    """

    def __init__(self, pipeline: str, ours: str, theirs: str, who: str = "") -> None:
        super().__init__(pipeline, ours, theirs, who)
        self.pipeline, self.ours, self.theirs = pipeline, ours, theirs
        self.who = who or "process unknown"

    def __str__(self) -> str:
        return (
            f"Pipeline {self.pipeline!r} now belongs to another process ({self.who}; "
            f"owner {self.theirs}, we were {self.ours}). Nothing was committed; run "
            "one process per pipeline name."
        )


class AlreadyRunningError(FencedError):
    """A pipeline cannot start, as another process runs it."""

    def __str__(self) -> str:
        return (
            f"Pipeline {self.pipeline!r} is run by another process ({self.who}). "
            "Nothing was read; stop that one first, or start with --takeover to "
            "take its place."
        )


class StateVersionError(CepError, ValueError):
    """Stored state that this code cannot read."""

    def __init__(self, what: str, found: str, expected: str, remedy: str = "") -> None:
        super().__init__(what, found, expected, remedy)
        self.what, self.found, self.expected = what, found, expected
        self.remedy = remedy or (
            "Run the version that wrote it, or start anew under another pipeline name."
        )

    def __str__(self) -> str:
        return (
            f"The stored state of {self.what} is {self.found}, this code reads "
            f"{self.expected}. {self.remedy}"
        )


class ArchiveError(CepError, RuntimeError):
    """Files of an archive that cannot be read or written, or are not as they were."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class GapError(CepError, LookupError):
    """Entries were trimmed from a stream before this reader saw them.

    ``begun_anew``: the stream itself was deleted, and perhaps made again.
    """

    def __init__(
        self, stream: str, missing: int, after_id: str, begun_anew: bool = False
    ) -> None:
        super().__init__(stream, missing, after_id, begun_anew)
        self.stream, self.missing, self.after_id = stream, missing, after_id
        self.begun_anew = begun_anew

    def __str__(self) -> str:
        entries = "entry" if self.missing == 1 else "entries"
        if self.begun_anew:
            return (
                f"{self.stream} was deleted after {self.after_id} was read, and with "
                f"it at least {self.missing} {entries} that were not. Restore it, or "
                "go on without them with --on-gap skip."
            )
        return (
            f"{self.stream} lost {self.missing} {entries} after {self.after_id} before "
            "they were read. Keep more of the stream (larger MAXLEN), and go on "
            "without them with --on-gap skip."
        )
