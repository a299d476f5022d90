"""How much memory this process has, and how much of it it may use."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

from cep.errors import UsageError

FRACTION = 0.8  # of what the machine or its control group has
_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(kB|MB|GB|KiB|MiB|GiB)")
_UNLIMITED = 1 << 60  # the first control groups say "no limit" with a large number


def size_bytes(text: str) -> int:
    """Return a size such as ``"512MB"`` or ``"1.5GiB"`` in bytes.

    >>> size_bytes("512MB"), size_bytes("1.5GiB")
    (512000000, 1610612736)
    """
    match = _SIZE.fullmatch(text)
    if match is None or not float(match[1]):
        raise UsageError(
            f"{text[:40]!r} is not a size.",
            f"Write a number and its unit, of {', '.join(_UNITS)}, such as 512MB.",
        )
    return int(float(match[1]) * _UNITS[match[2]])


def resident_bytes() -> int:
    """Return the memory that this process has now; where that is unknown, at most."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def default_limit(
    proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Return the part that is ours of what the machine or control group has."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    folders = [groups, groups / "memory"]
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        own = groups / line.rpartition(":")[2].lstrip("/")
        folders += [own, *(up for up in own.parents if groups in up.parents)]
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                continue
            if text.isdecimal() and 0 < int(text) < _UNLIMITED:
                found.append(int(text))
    return int(FRACTION * min(found))
