"""moto's S3 server on loopback, and what a client must know of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """The environment of a process that uses it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


def put(
    environment: Mapping[str, str], bucket: str, folder: str, files: Mapping[str, bytes]
) -> Any:
    """The ETags."""
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    client.create_bucket(Bucket=bucket)
    return {
        name: client.put_object(Bucket=bucket, Key=f"{folder}/{name}", Body=content)["ETag"]
        for name, content in files.items()
    }
