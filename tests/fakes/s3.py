"""moto's S3 server on loopback, and what a client must know of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.fakes.aws import client, environment_of


@contextmanager
def s3(host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """The environment of a process that uses it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(host, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield environment_of(f"http://{host}:{port}")
    server.stop()


def put(
    environment: Mapping[str, str], bucket: str, folder: str, files: Mapping[str, bytes]
) -> Any:
    """The ETags."""
    s3 = client("s3", environment)
    s3.create_bucket(Bucket=bucket)
    return {
        name: s3.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=content)["ETag"]
        for name, content in files.items()
    }
