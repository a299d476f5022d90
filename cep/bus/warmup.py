"""Compile the reader's kernels before they are needed, or see if they are.

numba keeps compiled kernels on disk (`NUMBA_CACHE_DIR`, else beside the
modules, else in the user's cache folder), so this takes some ten seconds of
CPU once on a machine and a fraction of a second from then on.
"""

from __future__ import annotations

from typing import Any


def is_warm() -> bool:
    """Whether the reader's largest kernel is in numba's cache on disk.

    A hint for what to tell the user, not a promise: another version of numba
    or another processor compiles again.
    """
    from cep.bus.kernels.payload import decode_payloads

    compiled: Any = decode_payloads
    try:
        return bool(compiled._cache._cache_file._load_index())
    except (AttributeError, OSError):
        return False


def warm_up() -> None:
    """Load the reader's kernels, compiling those that are not yet.

    >>> warm_up()
    """
    import numpy as np

    from cep.bus.kernels import reply
    from cep.bus.kernels.shape import new_shapes
    from cep.bus.page import Entries, PageDecoder
    from cep.bus.row_template import Hole, RowTemplate, Texts
    from cep.bus.ulid_columns import ulid_texts

    state, table = np.zeros(reply.STATE_SIZE, np.int64), np.zeros((1, 5), np.int64)
    reply.scan_reply(
        np.zeros(1, np.uint8), 0, state, table, table, table, *new_shapes()
    )
    RowTemplate.of([[Hole("x")]]).fill({"x": Texts.of_times(state[:1])})
    ulid_texts(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    PageDecoder("", envelope=["@user_id"]).decode(Entries.of([(b"0-0", [])]))
