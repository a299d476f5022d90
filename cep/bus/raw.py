"""Entries of a stream as they are, whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cep.bus.link import packed
from cep.bus.replies import Replies, ReplyTooLargeError
from cep.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Generator

    import redis

    from cep.bus.page import Entries

COUNT = 4000
_FEWER = 16  # by how much a count falls when a reply was too large


def iterate_entries(
    client: redis.Redis, stream: str, start: str, end: str = "+", *, count: int = COUNT
) -> Generator[Entries]:
    """Yield the entries of a stream from ``start`` to ``end``, up to ``count`` at once.

    Each lasts until the next is asked for.

    Parameters
    ----------
    start, end
        Entry ids as ``XRANGE`` takes them.

    Raises
    ------
    UsageError
        If an entry alone exceeds what is read of a reply
        (`cep.bus.replies.MAX_REPLY_BYTES`).
    """
    replies, now = Replies(client), count
    position = start.encode()
    try:
        while True:
            words = (b"XRANGE", stream.encode(), position, end.encode())
            replies.send(packed(*words, b"COUNT", b"%d" % now))
            try:
                entries = replies.ranges(1)
            except ReplyTooLargeError as too_large:
                if now == 1:
                    raise UsageError(
                        f"An entry of {stream} after {position.decode()} exceeds "
                        f"{too_large.limit:,} bytes.",
                        "Delete it (XDEL) to go on.",
                    ) from too_large
                now = max(1, now // _FEWER)
                continue
            if len(entries):
                position = b"(" + entries.entry_id(len(entries) - 1)
                done = len(entries) < now
                yield entries
                if not done:
                    now = min(count, 2 * now)
                    continue
            return
    finally:
        replies.close()
