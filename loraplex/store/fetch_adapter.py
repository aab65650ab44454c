"""PEFT's two files from a hub, S3 or a folder, into a folder here; goes on where it was left."""

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from loraplex.store.archives import ArchiveRefused, is_archive, unpack
from loraplex.store.models import Tell
from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS
from loraplex.store.sources import Source, SourceKind

log = logging.getLogger(__name__)

_ARCHIVE = "archive"
_BLOCK = 2**20
_TRIES = 5
_SHA256 = re.compile("[0-9a-f]{64}")
_TIMEOUT_S = 60.0
_NO_WEIGHTS = f"It has no {WEIGHTS}. Pickles (adapter_model.bin) are not read: save as safetensors."


class FetchFailed(Exception):
    """The text says why, for who asked for it."""


class Stopped(Exception):
    """Raised by who is told of the progress: it is not wanted any more."""


def fetch(source: Source, into: Path, token: str, most_bytes: int, tell: Tell) -> tuple[Path, Path]:
    """Config and weights, of a folder or an archive. `token`: the hub's, for private ones. Raises
    FetchFailed, Stopped."""
    into.mkdir(parents=True, exist_ok=True)
    ways: dict[SourceKind, Callable[[], None]] = {
        SourceKind.HUB: lambda: _from_hub(source, into, token, most_bytes, tell),
        SourceKind.S3: lambda: _from_s3(source, into, most_bytes, tell),
        SourceKind.LOCAL: lambda: _from_folder(source, into, most_bytes),
    }
    try:
        ways[source.kind]()
        if is_archive(source.name):
            return unpack(into / _ARCHIVE, into, most_bytes)
    except (FetchFailed, Stopped):
        raise
    except ArchiveRefused as refused:
        raise FetchFailed(str(refused)) from refused
    except Exception as failed:  # of the hub, of S3, of their HTTP clients, of the disk
        reason = _reason(source, failed)
        reason = reason.replace(token, "…") if token else reason
        raise FetchFailed(f"could not be fetched: {reason}") from failed
    return into / CONFIG, into / WEIGHTS


def _from_hub(source: Source, into: Path, token: str, most_bytes: int, tell: Tell) -> None:
    """huggingface_hub honours HF_ENDPOINT. Without a token it asks as nobody: the operator's own
    (HF_TOKEN) would open the operator's private adapters to all tenants."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

    info = HfApi(token=token or False).model_info(
        source.name, revision=source.revision or None, files_metadata=True, timeout=_TIMEOUT_S
    )
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    _check_sizes(sizes, most_bytes)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    for name in (CONFIG, WEIGHTS):
        url = hf_hub_url(source.name, name, revision=info.sha)
        file = get_hf_file_metadata(url, token=token or False, timeout=_TIMEOUT_S)
        blocks = partial(_http_blocks, url, headers)
        _append(blocks, into / name, file.size or sizes[name], file.etag or "", source, tell)


def _from_s3(source: Source, into: Path, most_bytes: int, tell: Tell) -> None:
    """By the server's own credentials, as boto3 finds them; AWS_ENDPOINT_URL names another S3."""
    import s3fs

    remote = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    named = source.name.removeprefix("s3://")
    if is_archive(named):
        found = {_ARCHIVE: (named, remote.info(named))}
        _check_size(int(found[_ARCHIVE][1]["size"]), most_bytes)
    else:
        paths = {name: f"{named}/{name}" for name in (CONFIG, WEIGHTS)}
        found = {n: (path, remote.info(path)) for n, path in paths.items() if remote.exists(path)}
        _check_sizes({name: int(info["size"]) for name, (_, info) in found.items()}, most_bytes)
    for name, (path, info) in found.items():
        blocks = partial(_s3_blocks, remote, path)
        _append(blocks, into / name, int(info["size"]), str(info["ETag"]), source, tell)


def _http_blocks(url: str, headers: dict[str, str], start: int) -> Iterator[bytes]:
    """httpx keeps the token from the host that a redirect leads to."""
    ranged = headers | {"range": f"bytes={start}-"}
    with httpx.stream(
        "GET", url, headers=ranged, follow_redirects=True, timeout=_TIMEOUT_S
    ) as response:
        response.raise_for_status()
        if start and response.status_code != httpx.codes.PARTIAL_CONTENT:
            raise FetchFailed("the server doesn't go on in the middle of a file")
        yield from response.iter_bytes(_BLOCK)


def _s3_blocks(remote: Any, path: str, start: int) -> Iterator[bytes]:
    with remote.open(path, "rb", cache_type="none") as there:
        there.seek(start)
        while block := there.read(_BLOCK):
            yield block


def _append(
    blocks_from: Callable[[int], Iterator[bytes]],
    path: Path,
    size: int,
    etag: str,
    source: Source,
    tell: Tell,
) -> None:
    """Go on where an earlier try ended, if it was of the same content."""
    mark = path.with_suffix(".etag")
    if not mark.exists() or mark.read_text() != etag:
        path.unlink(missing_ok=True)
        mark.write_text(etag)
    with path.open("ab") as here:
        for _ in range(_TRIES):
            try:
                for block in blocks_from(here.tell()) if here.tell() < size else ():
                    tell(f"fetching {source}: {path.name}", here.tell() / size)
                    here.write(block[: size - here.tell()])
            except httpx.TransportError as broken:
                log.info("%s at byte %d: %s", source, here.tell(), broken)
            if here.tell() >= size:
                here.flush()
                _check_content(path, etag)
                return
    raise FetchFailed(f"{path.name} broke off again and again.")


def _check_content(path: Path, etag: str) -> None:
    """A hub's ETag of a large file is its SHA-256."""
    if not _SHA256.fullmatch(etag):
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != etag:
        path.unlink()
        raise FetchFailed(f"{path.name} was damaged on its way. Try again.")


def _from_folder(source: Source, into: Path, most_bytes: int) -> None:
    folder = Path(source.name)
    if is_archive(source.name):
        _check_size(folder.stat().st_size, most_bytes)
        shutil.copyfile(folder, into / _ARCHIVE)
        return
    files = [folder / name for name in (CONFIG, WEIGHTS)]
    _check_sizes({f.name: f.stat().st_size for f in files if f.is_file()}, most_bytes)
    for file in files:
        shutil.copyfile(file, into / file.name)


def _check_sizes(sizes: dict[str, int], most_bytes: int) -> None:
    if CONFIG not in sizes:
        raise FetchFailed(f"It has no {CONFIG}: it isn't an adapter in PEFT's format.")
    if WEIGHTS not in sizes:
        raise FetchFailed(_NO_WEIGHTS)
    if sizes[CONFIG] > MAX_CONFIG:
        raise FetchFailed(f"{CONFIG} has {sizes[CONFIG]} bytes; at most {MAX_CONFIG}.")
    _check_size(sizes[CONFIG] + sizes[WEIGHTS], most_bytes)


def _check_size(total: int, most_bytes: int) -> None:
    if total > most_bytes:
        raise FetchFailed(f"It has {total} bytes; at most {most_bytes} (LORAPLEX_MAX_UPLOAD_BYTES)")


def _reason(source: Source, failed: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(failed, GatedRepoError):
        return "it is gated: accept its terms on the hub, and give a token (--token)"
    if isinstance(failed, RepositoryNotFoundError):
        return f"there is no repo {source.name}, or it is private and wants a token (--token)"
    if isinstance(failed, RevisionNotFoundError):
        return "it has no such revision"
    return (str(failed).strip() or type(failed).__name__).splitlines()[0]
