"""The live runtime: read, order, match, commit, again.

One process runs a pipeline. It reads its streams with plain ``XREAD`` from its
own positions, hands released rows to the engine, and commits what follows from
them in one script (`commit.lua`). It is crash-only: whenever the outcome of
something is unknown it drops its memory and starts from what is stored, which
is all that a restart does, too.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from cep.bus.connection import connect_redis
from cep.clock import Clock, SystemClock
from cep.errors import AccessDeniedError, CepError, ConnectionFailedError
from cep.pipeline import limits
from cep.pipeline.definition import checked_level
from cep.pipeline.memory import default_limit
from cep.pipeline.notes import Note
from cep.pipeline.session import Session
from cep.pipeline.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from cep.pipeline.definition import Level, OnGap, Pipeline
    from cep.pipeline.poison import Care
    from cep.pipeline.summary import Summary


class Runner:
    """Runs a pipeline until it is stopped or its input has ended.

    Parameters
    ----------
    pipeline
        What to run.
    url
        The server; None: the settings (``CEP_REDIS_URL``).
    takeover
        Take the pipeline from another process that runs it.
    drain
        Take what is there when the run begins as the whole input.
    on_gap
        What to do when entries were lost before they were read, instead of
        what the pipeline and its streams say; see `cep.pipeline.stream`.
    max_rss
        Bytes of memory with which the pipeline commits and ends, before the
        system ends it. None: 80 % of what the machine, or its control group,
        has.
    durability
        What is asked of the server instead of what the pipeline asks.
    report
        Called now and then with a `Summary`, at least once at the end.
    note
        Called with a `Note`, a line of text, for what an operator should read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        url: str | None = None,
        *,
        takeover: bool = False,
        drain: bool = False,
        on_gap: OnGap | None = None,
        max_rss: int | None = None,
        durability: Level | None = None,
        report: Callable[[Summary], None] | None = None,
        note: Callable[[Note], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.pipeline, self.url = pipeline, url
        self.takeover, self.drain, self.on_gap = takeover, drain, on_gap
        self.max_rss = default_limit() if max_rss is None else max_rss
        self.durability = checked_level(durability) or pipeline.durability
        self.report = report or (lambda _: None)
        self.note = note or (lambda _: None)
        self._clock = clock or SystemClock()
        self.stopping = False
        self.reached = False
        self.committed = 0  # the last commit that the server acknowledged
        self._waited = False
        self.care: Care | None = None
        self.began = time.monotonic()
        # Ourselves, and those whose place we took. Anyone else who owns the
        # pipeline after a lost connection came later and is not to be fenced.
        self.owners: set[str] = set()

    def stop(self) -> None:
        """End after the next commit; may be called from a signal handler."""
        self.stopping = True

    def run(self) -> Summary:
        """Run; returns the summary after a clean end.

        Raises
        ------
        AlreadyRunningError
            If another process runs the pipeline already.
        FencedError
            If another process takes over the pipeline.
        GapError
            If entries were lost before they were read, and we are to stop.
        MemoryLimitError
            If the process has more memory than it may.
        ConnectionFailedError
            If the server cannot be reached at the start; later it is waited for.
        AccessDeniedError
            If it does not let us in, at any time.
        """
        attempt = -1
        while True:
            client = connect_redis(self.url)
            most = self.pipeline.max_dead_letters
            store = Store(client, self.pipeline.name, most)
            reachable = True
            try:
                session = Session(self, store)
                if self.drain and not self.reached:
                    store.tick("end")
                self.reached = True
                return session.run()
            except ConnectionFailedError as error:
                reachable = False
                denied = isinstance(error, AccessDeniedError)
                if denied or not self.reached or self.stopping:
                    raise
                attempt = 0 if store.seq > self.committed else attempt + 1
                self.committed = max(self.committed, store.seq)
                waits = limits.BACKOFF_SECONDS
                wait = waits[min(attempt, len(waits) - 1)]
                text = f"{error} Starting from the last commit in {wait:g} s."
                fields = {"commit": self.committed, "wait_seconds": wait}
                self.note(Note(text, "connection_lost", "warning", **fields))
                self._clock.sleep(wait)
            except (CepError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                self._note_crash(store)
                raise
            finally:
                store.leave(reachable=reachable)
                client.close()

    def _note_crash(self, store: Store) -> None:
        """Let the next process know that this one ended as nobody expected."""
        if self.care is not None:
            self.care.attempts.crashed = True
            with contextlib.suppress(CepError):
                store.put_attempts(self.care.attempts)

    def wait_for_owner(self, who: str) -> bool:
        """Wait a moment to see whether the owner found at the start is alive."""
        if not self._waited:
            text = (
                f"Pipeline {self.pipeline.name!r} has an owner ({who}): seeing "
                f"whether it is alive, for up to {limits.LEASE_SECONDS:g} s."
            )
            self.note(Note(text, "owned", owner=who))
        self._waited = True
        self._clock.sleep(limits.LEASE_POLL_SECONDS)
        return not self.stopping
