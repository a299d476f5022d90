import io
import sys

import pytest

from cep.frames import progress as module
from cep.frames.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class ZMQInteractiveShell:
    """What IPython calls the shell of a notebook's kernel."""


def make_terminal(monkeypatch):
    """Make stderr a terminal; in the test itself, pytest puts its own back before."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.fixture
def notebook(monkeypatch):
    monkeypatch.setattr(module, "_in_notebook", lambda: True)


def run(total=10, *, fail=False):
    with progress("market.events", total) as advance:
        for _ in range(5):
            advance(2)
        if fail:
            raise KeyError


def test_nothing_is_written_where_nobody_looks(capfd, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    run()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_quick_load_shows_nothing_in_a_terminal(monkeypatch, kind):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setenv("TERM", kind)
    run()
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("total", [10, None])
def test_a_slow_load_shows_a_bar_in_a_terminal(monkeypatch, total):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    run(total)
    assert "market.events" in terminal.getvalue()


@pytest.mark.usefixtures("notebook")
def test_a_slow_load_shows_a_bar_in_a_notebook(capfd, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    run()
    assert "market.events" in capfd.readouterr().err


@pytest.mark.usefixtures("notebook")
def test_a_notebook_without_tqdm_shows_nothing(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    run()
    assert capfd.readouterr() == ("", "")


def test_only_a_kernels_shell_is_a_notebook(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not module._in_notebook()
    ipython = type(sys)("IPython")
    ipython.get_ipython = ZMQInteractiveShell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert module._in_notebook()


def test_a_load_that_fails_takes_its_bar_away(monkeypatch):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    with pytest.raises(KeyError):
        run(fail=True)
    shows_cursor = "\x1b[?25h"
    assert terminal.getvalue().count(shows_cursor) == 1
