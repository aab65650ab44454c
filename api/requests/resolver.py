"""What a request's `model` means, remembered for a moment: a look into the database and a change of
threads for each request would cost more than all the rest of it.

What has changed meanwhile is noticed by the lane: its gate is shut, and `forget` lets the next look
be a real one.
"""

from dataclasses import dataclass

from cachetools import TTLCache
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine
from sqlmodel import Session

from api.errors import ApiError
from api.requests.models import ServedModel, ServedModels
from api.requests.resolve import Target, resolve
from loraplex.entities import Deployment
from loraplex.not_serving import not_serving
from loraplex.status import ADMITTING, Status
from loraplex.store.models import ModelStore

_MOST = 10_000
REMEMBERED_S = 1.0


@dataclass(frozen=True, slots=True)
class Resolved:
    target: Target
    served: ServedModel


class Resolver:
    """Of one API process; used by its event loop alone."""

    def __init__(self, database: Engine, models: ModelStore, served: ServedModels) -> None:
        self._database = database
        self._models = models
        self._served = served
        self._known: TTLCache[tuple[str, str], Resolved] = TTLCache(_MOST, REMEMBERED_S)

    async def resolve(self, tenant: str, model: str) -> Resolved:
        """Raises ApiError; refusals are not remembered."""
        known = self._known.get((tenant, model))
        if known is None:
            known = await run_in_threadpool(self._look, tenant, model)
            self._known[tenant, model] = known
        return known

    def forget(self) -> None:
        """Something was changed."""
        self._known.clear()

    def _look(self, tenant: str, model: str) -> Resolved:
        with Session(self._database, expire_on_commit=False) as session:
            target = resolve(session, tenant, model)
        deployment = target.deployment
        if deployment.status not in ADMITTING:
            raise ApiError(
                503 if deployment.status == Status.ERRORED else 409,
                f"deployment_{deployment.status}",
                not_serving(deployment.name, deployment.status, deployment.reason),
                param="model",
            )
        return Resolved(target, self.served_for(deployment))

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
