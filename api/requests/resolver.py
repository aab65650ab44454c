"""What a request's `model` means, remembered for a moment: a look into the database and a change of
threads for each request would cost more than all the rest of it.

What has changed meanwhile is noticed by the lane: its gate is shut, and `forget` lets the next look
be a real one.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass, replace

from cachetools import LRUCache
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine
from sqlmodel import Session

from api.errors import ApiError
from api.requests.merges import Merges
from api.requests.models import ServedModel, ServedModels
from api.requests.resolve import Shadow, merge_parts, resolve
from loraplex.entities import Deployment
from loraplex.not_serving import not_serving
from loraplex.status import ADMITTING, Status
from loraplex.store.merging import Merge
from loraplex.store.models import ModelStore

_MOST = 10_000
REMEMBERED_S = 1.0


_Asked = tuple[str, str, Merge | None]  # tenant, model, what is merged


@dataclass(frozen=True, slots=True)
class Variant:
    name: str  # as its tenant names it; "": the base model
    digest: str | None  # of its weights; None: the base model
    weight: int = 1


BASE = Variant("", None)


@dataclass(frozen=True, slots=True)
class Resolved:
    """`variants`: what an adapter's name means, several where an alias is split; `shadow`: what is
    asked besides."""

    deployment: Deployment
    served: ServedModel
    variants: tuple[Variant, ...] = (BASE,)
    shadow: Shadow | None = None

    def variant(self, key: str) -> Variant:
        """By weights; the same for the same key."""
        if len(self.variants) == 1:
            return self.variants[0]
        draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        left = draw * sum(each.weight for each in self.variants)
        for each in self.variants:
            left -= each.weight
            if left < 0:
                return each
        return self.variants[-1]


def _read(look: "asyncio.Task[Resolved]") -> None:
    """A refusal that nobody waits for is no error of ours."""
    if not look.cancelled():
        look.exception()


class Resolver:
    """Of one API process; used by its event loop alone."""

    def __init__(
        self, database: Engine, models: ModelStore, served: ServedModels, merges: Merges
    ) -> None:
        self._database = database
        self._models = models
        self._served = served
        self._merges = merges
        self._known: LRUCache[_Asked, tuple[float, Resolved]] = LRUCache(_MOST)
        self._looking: dict[_Asked, asyncio.Task[Resolved]] = {}

    async def resolve(self, tenant: str, model: str, merge: Merge | None = None) -> Resolved:
        """Raises ApiError; refusals are not remembered."""
        asked = (tenant, model, merge)
        since, known = self._known.get(asked, (0.0, None))
        age_s = time.monotonic() - since
        if known is not None and age_s < REMEMBERED_S:
            return known
        look = self._looking.get(asked)
        if look is None:  # one for all who ask
            look = self._looking[asked] = asyncio.create_task(self._look_up(asked))
            look.add_done_callback(_read)
        if known is not None and age_s < 2 * REMEMBERED_S:
            return known  # nobody waits while it is asked for again
        return await asyncio.shield(look)

    async def _look_up(self, asked: _Asked) -> Resolved:
        mine = asyncio.current_task()
        try:
            found = await run_in_threadpool(self._look, *asked)
            tenant, _, merge = asked
            if merge is not None:
                found = await self._merged(tenant, merge, found)
            if self._looking.get(asked) is mine:  # else something was changed meanwhile
                self._known[asked] = time.monotonic(), found
            return found
        except BaseException:
            self._known.pop(asked, None)
            raise
        finally:
            if self._looking.get(asked) is mine:
                del self._looking[asked]

    def forget(self) -> None:
        """Something was changed."""
        self._known.clear()
        self._looking.clear()

    async def _merged(self, tenant: str, merge: Merge, parts: Resolved) -> Resolved:
        digests = tuple(part.digest or "" for part in parts.variants)
        digest = await self._merges.digest(tenant, replace(merge, adapters=digests))
        return replace(parts, variants=(Variant(merge.name, digest),))

    def _look(self, tenant: str, model: str, merge: Merge | None) -> Resolved:
        """Where something is to be merged, the parts are the variants."""
        with Session(self._database, expire_on_commit=False) as session:
            target = resolve(session, tenant, model)
            parts = merge_parts(session, tenant, target, merge) if merge else []
        deployment = target.deployment
        if deployment.status not in ADMITTING:
            raise ApiError(
                503 if deployment.status == Status.ERRORED else 409,
                f"deployment_{deployment.status}",
                not_serving(deployment.name, deployment.status, deployment.reason),
                param="model",
            )
        served = self.served_for(deployment)
        if merge is not None:
            return Resolved(deployment, served, tuple(Variant(a.ref, a.digest) for a in parts))
        if target.adapter is None:
            return Resolved(deployment, served)
        weighted = zip((target.adapter, *target.others), target.weights, strict=True)
        variants = tuple(Variant(a.ref, a.digest, weight) for a, weight in weighted)
        return Resolved(deployment, served, variants, target.shadow)

    def served_for(self, deployment: Deployment) -> ServedModel:
        """Raises ApiError while its base model isn't here."""
        folder = self._models.find(deployment.base_model)
        if folder is None:
            raise ApiError(
                503,
                "deployment_pending",
                f"The base model of deployment {deployment.name!r} is still being fetched.",
                retry_after_s=5,
            )
        return self._served.load(folder)
