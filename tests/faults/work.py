"""What the faults are done to, and processes that run it.

The pipeline is that of `tests.faults.rules`: two streams, with a Kleene closure,
an absence and a sequence across both, on entries of which some are late and
some no events.
"""

import random
import time
from pathlib import Path

import live

import cep.cli.run  # noqa: F401  for the process that others are forked from
from cep.cli import main
from cep.errors import ConnectionFailedError
from cep.events.codec import encode
from cep.events.envelope import Event
from cep.pipeline.store import Store

MODULE = str(Path(__file__).with_name("rules.py"))
TICKING = str(Path(__file__).with_name("ticking.py"))


def entries(n, seed=0):
    """The same entries for the same seed, as (stream, entry id, fields)."""
    return [
        (key, entry_id, encode(what) if isinstance(what, Event) else what)
        for key, entry_id, what in live.traffic(seed, n)
    ]


# What to run; each takes (module, url) and returns an exit code ---------------


def cep_run(module, url, *options):
    """``cep run``."""
    return main(["run", module, "--redis", url, "--quiet", *options])


def commit_in_two(pause=0.0):
    """Plant a bug in this process: outputs are not in the commit."""
    commit = Store.commit

    def in_two(self, entries, *rest):
        for stream, words in live.entries_of(entries):
            live.add(self.client, stream, words)
        time.sleep(pause if entries else 0)
        return commit(self, [], *rest)

    Store.commit = in_two


def outputs_apart(module, url):
    """A planted bug: outputs are not in the commit that moves the position."""
    commit_in_two(pause=0.3)
    return cep_run(module, url)


def outputs_unfenced(module, url, *options):
    """A planted bug: outputs are written before the owner is looked at."""
    commit_in_two(pause=0.02)
    return cep_run(module, url, *options)


def outputs_sent_again(module, url):
    """A planted bug: what may not have been committed is written once more."""
    commit = Store.commit

    def insistent(self, entries, *rest):
        try:
            return commit(self, entries, *rest)
        except ConnectionFailedError:
            for stream, words in live.entries_of(entries):
                live.add(self.client, stream, words)
            raise

    Store.commit = insistent
    return cep_run(module, url)


def state_forgotten(module, url):
    """A planted bug: commits are without what changed of rules.

    Windows that are not whole would be refused at the next start.
    """
    commit = Store.commit

    def without(self, entries, state, *rest):
        state = {k: v for k, v in state.items() if not k.startswith("r|")}
        return commit(self, entries, state, *rest)

    Store.commit = without
    return cep_run(module, url)


def outputs_forgotten(module, url):
    """A planted bug: now and then a commit leaves out its first output."""
    commit, dice = Store.commit, random.Random(1)

    def without(self, entries, *rest):
        return commit(self, entries[dice.random() < 0.5 :], *rest)

    Store.commit = without
    return cep_run(module, url)
