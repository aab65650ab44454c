"""An object store (S3 and what speaks its protocol, or a folder: `file:///…`) for large objects.

Its reads leave the interpreter's lock alone, so that many ranges come at once. Credentials are
found as boto3 finds them; AWS_ENDPOINT_URL names another S3.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig, S3Credential

_SILENT = timedelta(seconds=30)  # without a byte
_LONGEST = timedelta(hours=1)  # of a request: a part of an object on a slow line
RETRIES: "RetryConfig" = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_ASKED_AGAIN = timedelta(minutes=5)
_PART = 16 * 2**20


class Bucket:
    """Objects below `url`. All raise OSError where it can't be reached or refuses."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @cached_property
    def _store(self) -> "ObjectStore":
        # Not before it is needed: its threads would not survive a fork.
        from obstore.store import from_url

        if self.url.startswith("s3://"):
            return from_url(self.url, **_s3_options())
        if self.url.startswith("file:"):
            return from_url(self.url, mkdir=True)
        raise OSError(f"{self.url!r}: s3://BUCKET/PREFIX, or file:///FOLDER.")

    def read(self, path: str, start: int, end: int) -> memoryview:
        """Bytes `start` to before `end`. Raises FileNotFoundError."""
        import obstore

        with self._told(path):
            return memoryview(obstore.get_range(self._store, path, start=start, end=end))

    def read_all(self, path: str) -> bytes:
        """Raises FileNotFoundError."""
        import obstore

        with self._told(path):
            return bytes(obstore.get(self._store, path).bytes())

    def read_first(self, path: str, most: int) -> tuple[memoryview, int]:
        """The first bytes of an object that isn't empty, and how many it has. Raises
        FileNotFoundError."""
        import obstore

        with self._told(path):
            found = obstore.get(self._store, path, options={"range": (0, most)})
            return memoryview(found.bytes()), found.meta["size"]

    def size(self, path: str) -> int | None:
        """None: there is no such object."""
        import obstore

        try:
            with self._told(path):
                return obstore.head(self._store, path)["size"]
        except FileNotFoundError:
            return None

    def put(self, path: str, content: Path | bytes) -> None:
        import obstore

        try:
            with self._told(path):
                obstore.put(self._store, path, content, chunk_size=_PART)
        except FileNotFoundError as missing:
            raise OSError(f"{self.url}: there is no such bucket") from missing

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as missing:
            raise FileNotFoundError(f"{self.url}/{path} doesn't exist") from missing
        except BaseError as failed:
            reason = str(failed).partition("\n")[0]
            if "redirect" in reason:
                reason += " Is the bucket in another region (AWS_REGION)?"
            raise OSError(f"{self.url}/{path}: {reason}") from failed


def _s3_options() -> dict[str, Any]:
    """Profiles, single sign-on, roles of machines, tasks and pods: all that boto3 knows."""
    from botocore.session import get_session

    session = get_session()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    authority = session.get_config_variable("ca_bundle")
    found = {
        "endpoint": endpoint,
        "region": os.environ.get("AWS_REGION") or session.get_config_variable("region"),
    }
    client = {
        "allow_http": bool(endpoint and endpoint.startswith("http:")),
        "read_timeout": _SILENT,
        "timeout": _LONGEST,
    }
    if authority:
        client["root_certificate"] = Path(authority).read_bytes()
    return {name: value for name, value in found.items() if value} | {
        "client_options": client,
        "retry_config": RETRIES,
        "credential_provider": partial(_credential, session),
    }


def _credential(session: Any) -> "S3Credential":
    found = session.get_credentials()
    if found is None:
        raise OSError("no AWS credentials are set (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role …)")
    now = found.get_frozen_credentials()  # botocore renews those that expire
    return {
        "access_key_id": now.access_key,
        "secret_access_key": now.secret_key,
        "token": now.token,
        "expires_at": datetime.now(UTC) + _ASKED_AGAIN,
    }
