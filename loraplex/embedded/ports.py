"""A TCP port that nobody listens on."""

import socket


def free_port() -> int:
    """Of the loopback address; taken by nobody at this instant."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
