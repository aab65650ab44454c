"""LoRAX' `adapter_source`: adapters that are named by where they lie are imported by the first
request for them, and are versions of a repo from then on."""

from collections.abc import Sequence

from api.errors import bad_request
from api.keyring import Caller
from api.lorax.schemas import GenerateRequest
from api.registry.imports import imported, source_of
from api.state import State


async def refs_of(
    state: State, caller: Caller, body: GenerateRequest, outside: Sequence[str]
) -> dict[str, str]:
    """As which each that comes from outside is registered, REPO/VERSION. Raises ApiError."""
    kind, token = body.parameters.adapter_source or "", body.parameters.api_token or ""
    sources = [source_of(state, caller, _spelled(state, caller, kind, each)) for each in outside]
    return dict(zip(outside, await imported(state, caller, sources, token), strict=True))


def _spelled(state: State, caller: Caller, kind: str, adapter: str) -> str:
    """As a source. In S3 a folder without its bucket lies below the only allowed prefix."""
    if kind == "hub":
        return f"hub:{adapter}"
    if kind == "s3" and not adapter.startswith("s3://"):
        prefixes = state.settings.s3_sources
        if len(prefixes) != 1:
            raise bad_request(f"{adapter!r}: s3://BUCKET/FOLDER.", "adapter_id")
        return f"{prefixes[0].replace('{tenant}', caller.tenant).rstrip('/')}/{adapter}"
    if kind == "local" and not adapter.startswith("/"):
        raise bad_request(f"{adapter!r}: a folder's absolute path.", "adapter_id")
    return adapter
