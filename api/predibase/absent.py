"""What Predibase's SDK can ask for and isn't here: a sentence that says what to do instead."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from api.errors import ApiError
from api.security import ForAdapters

router = APIRouter(prefix="/v2", tags=["predibase"], include_in_schema=False)

_METHODS = ["GET", "POST", "PUT", "DELETE"]
_ABSENT = {
    "gateways": "there is one gateway, this server",
    "secrets": "the platform's operator sets what is secret (docs/settings.md)",
    "batch-inference": "use OpenAI's batches (docs/clients.md)",
}


def _refusal(what: str, why: str) -> Callable[..., Awaitable[None]]:
    async def refuse(tenant: ForAdapters) -> None:
        raise ApiError(400, "not_supported", f"{what} isn't supported here: {why}.")

    return refuse


for _what, _why in _ABSENT.items():
    for _path in (f"/{_what}", f"/{_what}/{{rest:path}}"):
        router.add_api_route(_path, _refusal(_what, _why), methods=_METHODS)
router.add_api_route(
    "/datasets/{dataset}/augment",
    _refusal("augment", "datasets are taken as they are"),
    methods=_METHODS,
)
