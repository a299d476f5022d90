import os
import subprocess
import sys

import pytest

SCRIPT = """
from cep.bus.warmup import is_warm, warm_up
before = is_warm()
warm_up()
from cep.bus.kernels.payload import decode_payloads
print(before, is_warm(), len(decode_payloads.signatures))
"""


def run(**environment):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


@pytest.mark.slow
def test_kernels_are_compiled_once_in_the_folder_asked_for(tmp_path):
    """And in one form each, the form that real pages need."""
    assert run(NUMBA_CACHE_DIR=str(tmp_path)) == ["False", "True", "1"]
    assert run(NUMBA_CACHE_DIR=str(tmp_path)) == ["True", "True", "1"]


@pytest.mark.slow
def test_kernels_work_where_nothing_can_be_cached():
    locator = "numba.core.caching.ZipCacheLocator"
    assert run(NUMBA_CACHE_LOCATOR_CLASSES=locator) == ["False", "False", "1"]


def test_reading_needs_no_other_form_of_kernels_than_warming_up(redis):
    from cep.bus.kernels.envelope import decode_envelopes
    from cep.bus.kernels.payload import decode_payloads
    from cep.bus.kernels.reply import scan_reply
    from cep.bus.kernels.text import intern_column
    from cep.bus.reader import ColumnarReader, decode_entries, read_ids
    from cep.bus.warmup import warm_up

    warm_up()
    entry = redis.xadd("s", {"a": "b"})
    ColumnarReader(redis, ["s", "t"], envelope=["@metadata"]).read()
    read_ids(redis, "s", [entry])
    decode_entries("s", [])
    for kernel in (decode_envelopes, decode_payloads, scan_reply, intern_column):
        assert len(kernel.signatures) == 1
