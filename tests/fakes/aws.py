"""What a client must know of moto's servers on loopback."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import boto3

REGION = "us-east-1"


def environment_of(url: str) -> dict[str, str]:
    """Of a process that uses it."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": REGION,
    }


def client(service: str, environment: Mapping[str, str]) -> Any:
    return boto3.client(
        service,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def with_what_moto_lacks(app: Callable[..., Any]) -> Callable[..., Any]:
    """Calls of Terraform's provider that moto doesn't know, as AWS answers them."""
    backups = {"BackupPolicy": {"Status": "DISABLED"}}

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"].endswith("/backup-policy"):  # EFS
            backups.update(json.loads(body or "{}"))
            return _say(start, "application/json", json.dumps(backups))
        if environ.get("HTTP_X_AMZ_TARGET") == "AnyScaleFrontendService.ListTagsForResource":
            return _say(start, "application/json", '{"Tags": {}}')
        if b"Action=MonitorInstances" in body:  # EC2
            return _say(start, "text/xml", "<MonitorInstancesResponse/>")
        return app(environ | {"wsgi.input": io.BytesIO(body)}, start)

    return answer


def _say(start: Callable[..., Any], kind: str, body: str) -> list[bytes]:
    start("200 OK", [("content-type", kind)])
    return [body.encode()]
