"""Redis: connect, embed a server, publish, read by columns, replay.

========================  ====================================================
`connection`              clients from a URL or the settings; errors in words
`embedded`                a server that belongs to this process
`keys`                    which keys there are in Redis and what they hold
`publisher`               one event, many, columns of a frame
`reader`                  stream entries to typed columns
`replay`                  history published again as events
========================  ====================================================

Names are imported when first used: starting a server does not load numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cep.bus.connection import Settings as Settings
    from cep.bus.connection import clear_errors as clear_errors
    from cep.bus.connection import connect_redis as connect_redis
    from cep.bus.connection import masked as masked
    from cep.bus.embedded import EmbeddedServer as EmbeddedServer
    from cep.bus.page import StreamPage as StreamPage
    from cep.bus.publisher import Publisher as Publisher
    from cep.bus.reader import ColumnarReader as ColumnarReader
    from cep.bus.reader import decode_entries as decode_entries
    from cep.bus.reader import iterate_range as iterate_range
    from cep.bus.reader import read_ids as read_ids
    from cep.bus.reader import read_range as read_range
    from cep.bus.reader import read_spans as read_spans

__all__ = [
    "EmbeddedServer",
    # connection
    "connect_redis",
    "clear_errors",
    "masked",
    "Settings",
    # writing
    "Publisher",
    # reading
    "ColumnarReader",
    "StreamPage",
    "read_range",
    "iterate_range",
    "read_ids",
    "read_spans",
    "decode_entries",
]

_HOME_OF = {
    "EmbeddedServer": "embedded",
    "connect_redis": "connection",
    "clear_errors": "connection",
    "masked": "connection",
    "Settings": "connection",
    "Publisher": "publisher",
    "StreamPage": "page",
    "ColumnarReader": "reader",
    "read_range": "reader",
    "iterate_range": "reader",
    "read_ids": "reader",
    "read_spans": "reader",
    "decode_entries": "reader",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        msg = f"module 'cep.bus' has no attribute {name!r}"
        raise AttributeError(msg)
    found: object = getattr(import_module(f"cep.bus.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
