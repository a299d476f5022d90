"""A page in headless Chromium: its elements afterwards, what it asked for."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """What became of a page.

    ``dom`` is its HTML after its scripts have run; ``asked`` the addresses and names
    that it asked the network for, of which none is ever reached.
    """

    dom: str
    asked: list[str]


def chromium():
    """Return the browser; skip the test without one, or fail it under CI."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        reason = "There is no Chromium: install it with apt-get install chromium."
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def open_page(path, folder):
    """Open a file in a browser of its own and return what became of it."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--log-net-log={log}",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            path.resolve().as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return Opened(done.stdout.decode(), _asked(json.loads(log.read_bytes())))


def _asked(log):
    """Return what the page asked for; the browser asks for things of its own, too.

    The network log names on whose behalf something is asked for, and ours is a file.
    """
    asked = []
    for event in log["events"]:
        given = event.get("params", {})
        keys = ("network_isolation_key", "network_anonymization_key")
        ours = any("file://" in str(given.get(key)) for key in keys)
        known = ours or given.get("initiator") == "null"
        address = given.get("url") or given.get("host")
        if known and address and not address.startswith(("file:", "data:", "blob:")):
            asked.append(address)
    return asked
