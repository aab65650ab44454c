"""`python -m benchmarks.capacity.subscribers URL CHANNEL…`: a connection each, which is read."""

import selectors
import sys
from urllib.parse import urlsplit

import redis


def main(url: str, channels: list[str]) -> None:
    where = urlsplit(url)
    selector, connections = selectors.DefaultSelector(), []
    for channel in channels:
        connection = redis.Connection(where.hostname, where.port or 6379, password=where.password)
        connection.connect()
        connection.send_command("SUBSCRIBE", channel)
        connections.append(connection)  # closed where nobody holds it
        selector.register(connection._sock, selectors.EVENT_READ)
    while True:
        for ready, _ in selector.select():
            ready.fileobj.recv(2**20)  # type: ignore[union-attr]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
