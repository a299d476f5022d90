"""The keys in Redis and what they hold.

A pipeline's keys share one hash tag, its name in braces, so one script may
touch them all on a cluster as well.

======================  ======  ==============================================
key                     type    meaning
======================  ======  ==============================================
``market.events``       stream  events, one entry each, nine fields
                                (`cep.events.codec`); likewise other streams
``cep:{name}:meta``     hash    owner, commit number, rule hash, read
                                positions, counts, ids of buffered entries
``cep:{name}:state``    hash    state of one rule and key in each field
``cep:{name}:ticks``    stream  times that stand for events while streams idle
``dlq:{name}``          stream  entries given up on: late, quarantined, gaps
``cep:{name}:retried``  hash    of those published again: row to new entry
======================  ======  ==============================================
"""

from __future__ import annotations

from cep.errors import UsageError


def meta_key(name: str) -> str:
    """Return the key of a pipeline's position and owner.

    >>> meta_key("market-ai")
    'cep:{market-ai}:meta'
    """
    return f"cep:{_tag(name)}:meta"


def state_key(name: str) -> str:
    """Return the key of a pipeline's rule states."""
    return f"cep:{_tag(name)}:state"


def ticks_key(name: str) -> str:
    """Return the key of a pipeline's ticks."""
    return f"cep:{_tag(name)}:ticks"


def retried_key(name: str) -> str:
    """Return the key of the marks of dead letters that were published again."""
    return f"cep:{_tag(name)}:retried"


def dlq_key(name: str) -> str:
    """Return the key of a pipeline's dead letters.

    >>> dlq_key("market-ai")
    'dlq:{market-ai}'
    """
    return f"dlq:{_tag(name)}"


def _tag(name: str) -> str:
    if not name or not name.isprintable() or {"{", "}"} & set(name):
        raise UsageError(
            f"{name!r} cannot name a pipeline.",
            "Use printable characters without braces, at least one.",
        )
    return f"{{{name}}}"
