import inspect
import pickle

import pytest

from cep import errors
from cep.errors import CepError, near_miss, shown

EXAMPLES = [
    (
        errors.UsageError("No file 'x.parquet'.", "Check the path."),
        ValueError,
        "No file 'x.parquet'. Check the path.",
    ),
    (
        errors.InvalidDurationError(5, "a bare number says no unit"),
        ValueError,
        (
            "'5 (int)' is not a duration: a bare number says no unit. Write a number "
            "and its unit, such as '250ms', '60s', '5m', '1h30m' or '2d', or pass a "
            "datetime.timedelta."
        ),
    ),
    (
        errors.MissingExtraError("scipy", "stats"),
        ImportError,
        (
            "scipy is not installed. It comes with the extra stats: "
            "pip install 'cep-kit[stats]'"
        ),
    ),
    (
        errors.ArchiveError("a.parquet is cut short.", "Restore it from a copy."),
        RuntimeError,
        "a.parquet is cut short. Restore it from a copy.",
    ),
    (
        errors.InvalidIdError("abc", "it has 3 characters"),
        ValueError,
        (
            "'abc' is not an event id: it has 3 characters. An id is a ULID: 26 "
            "upper-case Crockford base-32 characters, the first at most '7'. Leave "
            "the id out to have one made."
        ),
    ),
    (
        errors.InvalidPayloadError(
            "market.trade",
            [
                ("data.price", "'abc' (str)", "a finite number"),
                ("data.symbol", "missing", "a non-empty string", True, "a hint"),
            ],
        ),
        ValueError,
        (
            "market.trade is not valid: data.price is 'abc' (str), allowed: a finite "
            "number; data.symbol is missing, allowed: a non-empty string (a hint). "
            "Nothing was written."
        ),
    ),
    (
        errors.UnknownEventTypeError("market.trad", ["market.trade"]),
        LookupError,
        (
            "Event type 'market.trad' is not known. Did you mean 'market.trade'? "
            "Register your own types with cep.events.register(type, stream=...) in a "
            "module that is imported first; cep.events.registry.names() lists the "
            "known ones."
        ),
    ),
    (
        errors.UnknownEventVersionError("market.trade", 7, [1, 2]),
        LookupError,
        (
            "market.trade has no version 7; known: 1, 2. Register that version, or "
            "write one of the known ones."
        ),
    ),
    (
        errors.RegistrationError("a.b", 2, "the model is another."),
        ValueError,
        "a.b version 2 cannot be registered: the model is another.",
    ),
    (
        errors.WireError("bad_id", "id is 'x' (str)", "market.events", "5-0"),
        ValueError,
        "entry 5-0 of market.events: bad_id: id is 'x' (str)",
    ),
    (
        errors.RuleError("rules.py:7", "A rule needs a step.", "Add on(...)."),
        ValueError,
        "rules.py:7: A rule needs a step. Add on(...).",
    ),
    (
        errors.UnknownFieldError(
            "prcie", ["market.trade"], ["price"], ["price", "symbol"], "rule 'spike'"
        ),
        LookupError,
        (
            "rule 'spike': market.trade has no field 'prcie'. Did you mean 'price'? "
            "Its fields are: price, symbol."
        ),
    ),
    (
        errors.ConnectionFailedError(
            "redis://:***@host:1", OSError(111, "Connection refused"), "Start it."
        ),
        ConnectionError,
        (
            "Cannot use Redis at redis://:***@host:1: [Errno 111] Connection refused."
            " Start it."
        ),
    ),
    (
        errors.AccessDeniedError(
            "redis://:***@host:1", OSError(111, "Connection refused"), "Start it."
        ),
        ConnectionError,
        (
            "Cannot use Redis at redis://:***@host:1: [Errno 111] Connection refused."
            " Start it."
        ),
    ),
    (
        errors.EmbeddedServerError("The server did not start.", "See its log."),
        RuntimeError,
        "The server did not start. See its log.",
    ),
    (
        errors.OutOfOrderError("order", 3, 5),
        ValueError,
        (
            "order: event time 3 ns is 2 ns before the last one taken in (5 ns). Sort"
            " the input by event time, or put a watermark with an out-of-orderness "
            "bound in front of this step."
        ),
    ),
    (
        errors.FencedError("market-ai", "01A", "01B", "host a, pid 1"),
        RuntimeError,
        (
            "Pipeline 'market-ai' now belongs to another process (host a, pid 1; owner "
            "01B, we were 01A). Nothing was committed; run one process per pipeline "
            "name."
        ),
    ),
    (
        errors.AlreadyRunningError("market-ai", "01A", "01B", "host a, pid 1"),
        RuntimeError,
        (
            "Pipeline 'market-ai' is run by another process (host a, pid 1). Nothing "
            "was read; stop that one first, or start with --takeover to take its place."
        ),
    ),
    (
        errors.StateVersionError("rule 'spike'", "version 3", "version 2"),
        ValueError,
        (
            "The stored state of rule 'spike' is version 3, this code reads version "
            "2. Run the version that wrote it, or start anew under another pipeline "
            "name."
        ),
    ),
    (
        errors.MemoryLimitError(2_100_000_000, 2_000_000_000),
        MemoryError,
        (
            "The process has 2,100 MB of memory, allowed: 2,000 MB. All it did is "
            "committed; start it again, with a larger --max-rss or with limits on "
            "windows and matches."
        ),
    ),
    (
        errors.GapError("market.events", 12, "5-0"),
        LookupError,
        (
            "market.events lost 12 entries after 5-0 before they were read. Keep more"
            " of the stream (larger MAXLEN), and go on without them with "
            "--on-gap skip."
        ),
    ),
]
NAMES = [type(error).__name__ for error, _, _ in EXAMPLES]


@pytest.mark.parametrize(("error", "builtin", "text"), EXAMPLES, ids=NAMES)
def test_says_what_is_wrong_with_which_value_and_what_to_do(error, builtin, text):
    assert str(error) == text
    assert isinstance(error, CepError)
    assert isinstance(error, builtin)


@pytest.mark.parametrize("error", [error for error, _, _ in EXAMPLES], ids=NAMES)
def test_survives_pickling_with_text_and_data(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_error_has_an_example_here():
    declared = {
        name
        for name, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, CepError) and member is not CepError
    }
    assert declared == set(NAMES)


def test_shown_value_is_cut_and_names_its_type():
    assert shown("x" * 200) == "'" + "x" * 76 + "... (str)"
    assert shown(3) == "3 (int)"


def test_shown_survives_a_broken_repr():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert shown(Broken()) == "a value that cannot be shown (Broken)"


def test_near_miss_offers_the_best_first_and_nothing_far_off():
    assert near_miss("bid_siz", ["ask_size", "bid", "bid_size"])[0] == "bid_size"
    assert near_miss("zzz", ["price"]) == []
