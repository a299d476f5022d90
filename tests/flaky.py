"""A link to a server that breaks, wherever the test wants it to."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class FlakyLink:
    """Passes bytes between clients and a server; each connection has a budget.

    ``budgets`` yields how many bytes of replies the next connection may bring
    back before it is cut, in the middle of a reply as likely as not; a command
    whose reply is lost was executed. When it is exhausted links hold.
    """

    def __init__(self, url, budgets):
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._budgets = iter(budgets)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.cuts = 0
        self._open = []

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._listener.close()
        self.cut()

    def cut(self):
        """Cut the links there are."""
        for link in self._open:
            _shut(link)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                for link in (near, far):
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [near, far]
                budget = next(self._budgets, None)
                for source, sink, bytes_left in (
                    (near, far, None),
                    (far, near, budget),
                ):
                    threading.Thread(
                        target=self._pass, args=(source, sink, bytes_left), daemon=True
                    ).start()

    def _pass(self, source, sink, bytes_left):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if bytes_left is not None and len(data) > bytes_left:
                    sink.sendall(data[:bytes_left])
                    self.cuts += 1
                    break
                sink.sendall(data)
                if bytes_left is not None:
                    bytes_left -= len(data)
        _shut(source)
        _shut(sink)


def _shut(link):
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
    link.close()
