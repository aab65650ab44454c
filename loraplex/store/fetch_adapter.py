"""PEFT's two files from a hub, S3 or a folder, into a folder here; goes on where it was left."""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loraplex.first_line import first_line
from loraplex.store.archives import ArchiveRefused, is_archive, unpack
from loraplex.store.models import Stopped, Tell
from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS
from loraplex.store.resumed import (
    TIMEOUT_S,
    FetchFailed,
    append,
    http_blocks,
    s3,
    s3_blocks,
)
from loraplex.store.sources import Source, SourceKind

log = logging.getLogger(__name__)

_ARCHIVE = "archive"
_NO_WEIGHTS = f"It has no {WEIGHTS}. Pickles (adapter_model.bin) are not read: save as safetensors."


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
        if source.kind is not SourceKind.HUB and is_archive(source.name):
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
        source.name, revision=source.revision or None, files_metadata=True, timeout=TIMEOUT_S
    )
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    _check_sizes(sizes, most_bytes)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    for name in (CONFIG, WEIGHTS):
        url = hf_hub_url(source.name, name, revision=info.sha)
        file = get_hf_file_metadata(url, token=token or False, timeout=TIMEOUT_S)
        blocks = partial(http_blocks, url, headers)
        append(blocks, into / name, file.size or sizes[name], file.etag or "", source, tell)


def _from_s3(source: Source, into: Path, most_bytes: int, tell: Tell) -> None:
    """By the server's own credentials, as boto3 finds them; AWS_ENDPOINT_URL names another S3."""
    remote = s3()
    named = source.name.removeprefix("s3://")
    if is_archive(named):
        found = {_ARCHIVE: (named, remote.info(named))}
        _check_size(int(found[_ARCHIVE][1]["size"]), most_bytes)
    else:
        paths = {name: f"{named}/{name}" for name in (CONFIG, WEIGHTS)}
        found = {n: (path, remote.info(path)) for n, path in paths.items() if remote.exists(path)}
        _check_sizes({name: int(info["size"]) for name, (_, info) in found.items()}, most_bytes)
    for name, (path, info) in found.items():
        blocks = partial(s3_blocks, remote, path)
        append(blocks, into / name, int(info["size"]), str(info["ETag"]), source, tell)


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
    return first_line(failed)
