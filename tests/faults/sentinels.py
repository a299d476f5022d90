"""A primary, its replica, and sentinels that watch them, as processes of our own."""

import contextlib
import os
import signal

import live
import redis as redis_py

from cep.bus.connection import connect_redis
from tests.faults import servers

SERVICE = "events"
QUORUM = 2


class Watched:
    """A service of two servers and three sentinels in a folder."""

    def __init__(self, folder, stack):
        self.ports = [servers.free_port() for _ in range(2)]
        common = ["appendonly no", 'save ""', "repl-diskless-sync-delay 0"]
        self._processes = {
            port: stack.enter_context(
                servers.running(
                    folder / f"server{port}", f"port {port}", *common, *more
                )
            )
            for port, more in zip(
                self.ports, ([], [f"replicaof 127.0.0.1 {self.ports[0]}"]), strict=True
            )
        }
        for port in self.ports:
            servers.wait_for_port(port)
        live.wait_until(lambda: self._info(0).get("connected_slaves") == 1, 60)
        self.sentinels = [servers.free_port() for _ in range(3)]
        words = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports[0]} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        for port in self.sentinels:
            stack.enter_context(
                servers.running(
                    folder / f"sentinel{port}",
                    f"port {port}",
                    *words,
                    mode=["--sentinel"],
                )
            )
            servers.wait_for_port(port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"
        live.wait_until(self._is_watched, 60)

    def _info(self, number):
        with connect_redis(f"redis://127.0.0.1:{self.ports[number]}/0") as client:
            return client.info("replication")

    def _is_watched(self):
        """Whether all sentinels know each other and the replica."""
        for port in self.sentinels:
            with connect_redis(f"redis://127.0.0.1:{port}/0") as client:
                state = client.sentinel_master(SERVICE)
            if state["num-slaves"] < 1 or state["num-other-sentinels"] < 2:
                return False
        return True

    def kill_primary(self):
        """Kill the first server and wait for the other one to be the primary."""
        os.kill(self._processes[self.ports[0]].pid, signal.SIGKILL)
        live.wait_until(self._is_replaced, 60)

    def _is_replaced(self):
        # Who is promoted hangs up on its clients.
        with contextlib.suppress(ConnectionError, redis_py.ConnectionError):
            return self._info(1)["role"] == "master" and self._names_the_other()
        return False

    def _names_the_other(self):
        names = set()
        for port in self.sentinels:
            with connect_redis(f"redis://127.0.0.1:{port}/0") as client:
                names.add(client.sentinel_get_master_addr_by_name(SERVICE)[1])
        return names == {self.ports[1]}


@contextlib.contextmanager
def watched(folder):
    """Start all of them; yields a `Watched`."""
    with contextlib.ExitStack() as stack:
        yield Watched(folder, stack)
