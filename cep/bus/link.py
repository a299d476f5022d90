"""A connection of a client whose socket is ours for a while.

redis-py connects (TLS, login, unix sockets); commands and replies then go past
its parser, which costs several microseconds a reply. The socket goes back to
the pool only if every reply was read to its end. In any other case it is
closed, so a rest of one reply can never be taken for the next one's.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from cep.bus.connection import address_of, cleared

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence


class Link:
    """Holds a connection between `send` and the reader of its reply.

    Not for several threads at once. Errors are this package's own, see
    `cep.bus.connection.clear_errors`, and leave the link closed.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.address = address_of(client)
        self._connection: Any = None
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether a connection is held."""
        return self._socket is not None

    def send(self, data: bytes | bytearray) -> None:
        """Send a packed command, connecting first where needed."""
        with self._own_errors():
            held = self._take()
            held.settimeout(self._connection.socket_timeout)
            held.sendall(data)

    def receive_into(self, buffer: memoryview, seconds: float | None = None) -> int:
        """Read at least one byte; ``seconds`` on top of the client's timeout."""
        with self._own_errors():
            held = self._take()
            own: float | None = self._connection.socket_timeout
            held.settimeout(None if own is None else own + (seconds or 0.0))
            count = held.recv_into(buffer)
            if count == 0:
                msg = "Connection closed by server."
                raise RedisConnectionError(msg)
            return count

    def give_back(self) -> None:
        """Return the connection to its pool; every reply must have been read."""
        connection, self._connection = self._connection, None
        held, self._socket = self._socket, None
        if connection is not None:
            if held is not None:
                held.settimeout(connection.socket_timeout)
            self.client.connection_pool.release(connection)

    def drop(self) -> None:
        """Close the connection, with whatever is still on its way."""
        connection, self._connection = self._connection, None
        self._socket = None
        if connection is not None:
            connection.disconnect()
            self.client.connection_pool.release(connection)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.drop()

    def _take(self) -> socket.socket:
        if self._socket is None:
            self._connection = self.client.connection_pool.get_connection()
            self._socket = self._connection._sock
            if self._socket is None:
                msg = "Connection closed by server."
                raise RedisConnectionError(msg)
        return self._socket

    @contextlib.contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            self.drop()
            raise cleared(error, self.client) from None
        except BaseException:
            # Ctrl-C in the middle of a reply: its rest must not stay behind.
            self.drop()
            raise


class Words(NamedTuple):
    """Words of a command as they go over the wire, and how many they are."""

    length: int
    data: bytes

    @classmethod
    def of(cls, words: Sequence[bytes]) -> Words:
        r"""Return words packed.

        >>> Words.of([b"key", b""])
        Words(length=2, data=b'$3\r\nkey\r\n$0\r\n\r\n')
        """
        parts = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
        return cls(len(words), b"".join(parts))


def packed(*words: bytes) -> bytes:
    r"""Return a command as it goes over the wire.

    >>> packed(b"GET", b"key")
    b'*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n'
    """
    return b"*%d\r\n%b" % Words.of(words)


def answer_to(client: redis.Redis, parts: Sequence[Words]) -> Any:
    """Send a command in parts; return the reply as redis-py's parser reads it.

    What redis-py does itself looks at each word in Python before it is packed,
    which for a commit of thousands of words costs more than all else.
    """
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        count = sum(part.length for part in parts)
        head = b"*%d\r\n" % count
        command = b"".join([head, *(part.data for part in parts)])
        connection.send_packed_command([command], check_health=False)
        return connection.read_response()
    except redis.ResponseError:
        raise
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)
