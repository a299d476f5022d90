"""Links to a server that break, wherever the test wants them to."""

import contextlib
import random
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes between clients and a server, unless told to do otherwise.

    Attributes
    ----------
    reply
        Called with (data, near, far) instead of passing a piece of replies on;
        ``near`` is the client's socket, ``far`` the server's.
    request
        The same for what clients send.
    cuts
        How often something was done to a link.
    """

    def __init__(self, url):
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.reply = self.request = None
        self.cuts = 0
        self._links = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """Cut the links there are."""
        links, self._links = self._links, []
        for link in links:
            _shut(link)

    def reset(self):
        """Cut the links there are as a router does that has forgotten them."""
        links, self._links = self._links, []
        for link in links:
            _reset(link)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._server)
                except OSError:
                    _shut(near)
                    continue
                for link in (near, far):
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links += [near, far]
                for pass_on in self._ways(near, far):
                    threading.Thread(target=pass_on, daemon=True).start()

    def _ways(self, near, far):
        """Return what passes bytes on, for each direction."""
        return (
            lambda: self._pass(near, far, lambda: self.request, (near, far)),
            lambda: self._pass(far, near, lambda: self.reply, (near, far)),
        )

    def _pass(self, source, sink, deed, link):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                do = deed()
                if do is None:
                    sink.sendall(data)
                else:
                    do(data, *link)
        _shut(source)
        _shut(sink)

    # What can be done to replies -------------------------------------------------

    def next_reply(self, do, *, of=b""):
        """Do something to one reply: to the next request that holds ``of``."""

        def watch(data, near, far):
            if of in data:
                self.request = None
                self.reply = once
            far.sendall(data)

        def once(data, near, far):
            self.reply = None
            self.cuts += 1
            do(data, near, far)

        self.request = watch

    def drop(self, data, near, far):
        """Pass nothing on."""

    def delay(self, seconds):
        """Pass it on later."""

        def late(data, near, far):
            time.sleep(seconds)
            near.sendall(data)

        return late

    def slice(self, data, near, far):
        """Pass it on byte by byte."""
        self.cuts += 1
        for i in range(len(data)):
            near.sendall(data[i : i + 1])

    def reset_at_random(self, seed, often):
        """Pass some of it on, then reset the link, now and then."""
        dice = random.Random(seed)

        def maybe(data, near, far):
            if dice.random() >= often:
                near.sendall(data)
                return
            self.cuts += 1
            near.sendall(data[: dice.randrange(len(data))])
            _reset(near)
            _reset(far)

        return maybe

    def go_dark(self):
        """Swallow everything, until `heal`."""
        self.cuts += 1
        self.reply = self.request = self.drop

    def heal(self):
        """Pass bytes on again; links that have lost some are no more."""
        self.reply = self.request = None
        self.reset()


class FlakyLink(Proxy):
    """A proxy of which each link has a budget.

    ``budgets`` yields how many bytes of replies the next connection may bring
    back before it is cut, in the middle of a reply as likely as not; a command
    whose reply is lost was executed. When it is exhausted links hold.
    """

    def __init__(self, url, budgets):
        super().__init__(url)
        self._budgets = iter(budgets)

    def _ways(self, near, far):
        left = next(self._budgets, None)

        def within_budget(data, near, far):
            nonlocal left
            if len(data) > left:
                near.sendall(data[:left])
                self.cuts += 1
                raise OSError
            near.sendall(data)
            left -= len(data)

        deed = None if left is None else within_budget
        return (
            lambda: self._pass(near, far, lambda: None, (near, far)),
            lambda: self._pass(far, near, lambda: deed, (near, far)),
        )


def _shut(link):
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()


def _reset(link):
    """Close so that the other side is told that the link is broken."""
    with contextlib.suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        link.shutdown(socket.SHUT_RD)  # wakes the thread that reads, sends nothing
    link.close()
