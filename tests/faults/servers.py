"""Servers of other kinds than the embedded one: TLS, replicas, sentinels."""

import contextlib
import shutil
import socket
import subprocess

import live

from cep.bus.embedded import server_binaries


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def debian_server():
    """Return Debian's redis-server, which can do TLS; None if it is not there."""
    return shutil.which("redis-server")


@contextlib.contextmanager
def running(folder, *words, binary=None, mode=()):
    """Run a server in a folder with configuration lines; yields its process."""
    folder.mkdir(exist_ok=True)
    config = folder / "server.conf"
    lines = [f'dir "{folder}"', "bind 127.0.0.1", 'logfile "server.log"', *words]
    config.write_text("\n".join(lines) + "\n")
    command = [binary or str(server_binaries()[0]), str(config), *mode]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_port(port):
    """Return once something listens there."""

    def listens():
        with socket.socket() as link:
            return link.connect_ex(("127.0.0.1", port)) == 0

    live.wait_until(listens, 30)


def certificates(folder, name):
    """Make an authority and a certificate of it for localhost in a folder."""
    folder.mkdir()
    ca, key = folder / "ca.pem", folder / "key.pem"
    cert, ca_key, request = folder / "cert.pem", folder / "ca-key.pem", folder / "r.csr"
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    pair = "-newkey rsa:2048 -nodes"
    sign = f"-CA {ca} -CAkey {ca_key} -CAcreateserial -days 2 -extfile {names}"
    commands = [
        f"req -x509 {pair} -days 2 -subj /CN={name} -keyout {ca_key} -out {ca}",
        f"req {pair} -subj /CN=localhost -keyout {key} -out {request}",
        f"x509 -req -in {request} {sign} -out {cert}",
    ]
    for command in commands:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    return folder
