"""Free TCP ports to listen on."""

from __future__ import annotations

import random
import socket

from brain_clusters.errors import PermanentError

# Below the range that systems take ports of outgoing connections from (32768 and up on Linux). In that range
# a client that calls a dead server again and again ends up connected to itself, and holds the server's port.
_PORTS = range(20_000, 32_000)
_TRIES = 200


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of ``host`` that is free now."""
    for port in random.sample(_PORTS, _TRIES):
        if is_free(port, host):
            return port
    raise PermanentError(f"no free port from {_PORTS.start} to {_PORTS.stop} on {host}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server can listen on ``port`` of ``host``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose old connections only wait for their end is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True
