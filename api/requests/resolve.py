"""The `model` of a request → a deployment and, where named, an adapter's digest."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from loraplex.entities import Adapter, Alias, Deployment
from loraplex.registry import find_adapter
from loraplex.status import ADMITTING, Status
from loraplex.store.merging import Merge


@dataclass(frozen=True, slots=True)
class Target:
    """`others`: what an alias may mean besides, and the weights of all, `adapter`'s first.
    `shadow`: a version that a share of its requests goes to, too."""

    deployment: Deployment
    adapter: Adapter | None
    others: Sequence[Adapter] = ()
    weights: Sequence[int] = (1,)
    shadow: "Shadow | None" = None


@dataclass(frozen=True, slots=True)
class Shadow:
    version: str  # repo/version
    percent: float


def resolve(session: Session, tenant: str, model: str) -> Target:
    """`deployment`, `deployment:adapter`, `adapter`, or a base model's name; an adapter is
    `repo/version` or `repo@alias`.

    Raises ApiError: 404 for what the tenant doesn't have, 400 when adapter and base don't fit.
    """
    name, colon, ref = model.partition(":")
    deployment = find_usable(session, tenant, name)
    if deployment is not None:
        names_adapter = colon and ref != deployment.base_model
        found = find_named(session, tenant, ref) if names_adapter else None
        if names_adapter and found is None:
            raise _unknown(ref)
        adapter = found[0][0] if found else None
        if adapter is not None and adapter.base_model != deployment.base_model:
            raise bad_request(
                f"Adapter {ref!r} is for {adapter.base_model}, but deployment {name!r} serves "
                f"{deployment.base_model}.",
                "model",
            )
        return _target(deployment, found, find_shadow(session, tenant, ref))
    found = find_named(session, tenant, model)
    adapter = found[0][0] if found else None
    base_model = adapter.base_model if adapter else model
    candidates = session.exec(
        select(Deployment)
        .where(
            or_(col(Deployment.tenant_id) == tenant, col(Deployment.shared)),
            Deployment.base_model == base_model,
            Deployment.status != Status.DELETED,
        )
        .order_by(col(Deployment.created_at))
    ).all()
    if candidates:  # one that serves, and one's own before a shared one
        best = min(candidates, key=lambda d: (d.status not in ADMITTING, d.tenant_id != tenant))
        return _target(best, found, find_shadow(session, tenant, model))
    if adapter is not None:
        raise ApiError(
            404,
            "model_not_found",
            f"No deployment serves {base_model}, the base model of adapter {model!r}. "
            f"Create one: loraplex deploy NAME --base-model {base_model}",
            param="model",
        )
    raise _unknown(model)


def merge_parts(session: Session, tenant: str, target: Target, merge: Merge) -> list[Adapter]:
    """The adapters to merge. Raises ApiError as `resolve` does."""
    name = target.deployment.name
    parts = [resolve(session, tenant, f"{name}:{ref}").adapter for ref in merge.adapters]
    if None in parts:
        raise bad_request("merged_adapters: the base model itself can't be merged.", "ids")
    return [part for part in parts if part is not None]


def model_within(deployment: str | None, model: str) -> str:
    """What a request's `model` means: anything at /v1; under a deployment's own path an adapter of
    it, or the deployment itself where it is empty, its name, or its base model's."""
    if deployment is None or model.startswith(f"{deployment}:"):
        return model
    return deployment if model in ("", deployment) else f"{deployment}:{model}"


def find_deployment(session: Session, tenant: str, name: str) -> Deployment | None:
    return session.exec(
        select(Deployment).where(
            Deployment.tenant_id == tenant,
            Deployment.name == name,
            Deployment.status != Status.DELETED,
        )
    ).first()


def find_usable(session: Session, tenant: str, name: str) -> Deployment | None:
    """One's own, or else a shared one."""
    own = find_deployment(session, tenant, name)
    if own is not None:
        return own
    return session.exec(
        select(Deployment).where(
            col(Deployment.shared),
            Deployment.name == name,
            Deployment.status != Status.DELETED,
        )
    ).first()


def need_usable(session: Session, tenant: str, name: str) -> Deployment:
    """Raises ApiError 404."""
    deployment = find_usable(session, tenant, name)
    if deployment is None:
        raise ApiError(404, "not_found", f"There is no deployment {name!r}.")
    return deployment


def need_deployment(session: Session, tenant: str, name: str) -> Deployment:
    """One's own. Raises ApiError 404, and 403 for a shared one."""
    deployment = need_usable(session, tenant, name)
    if deployment.tenant_id != tenant:
        message = f"Deployment {name!r} is shared: the platform's operators manage it."
        raise ApiError(403, "operators_only", message)
    return deployment


def deployments_of(session: Session, tenant: str) -> list[Deployment]:
    """A tenant's, by name."""
    wanted = select(Deployment).where(
        Deployment.tenant_id == tenant, Deployment.status != Status.DELETED
    )
    return list(session.exec(wanted.order_by(col(Deployment.name))))


def usable_by(session: Session, tenant: str) -> list[Deployment]:
    """A tenant's and the shared ones, by name; of a name that both have, its own."""
    wanted = select(Deployment).where(
        or_(col(Deployment.tenant_id) == tenant, col(Deployment.shared)),
        Deployment.status != Status.DELETED,
    )
    found: dict[str, Deployment] = {}
    for each in session.exec(wanted.order_by(col(Deployment.name))):
        if each.name not in found or each.tenant_id == tenant:
            found[each.name] = each
    return list(found.values())


Named = Sequence[tuple[Adapter, int]]  # with weights


def _target(deployment: Deployment, found: Named | None, shadow: Shadow | None) -> Target:
    if not found:
        return Target(deployment, None)
    (adapter, _), *others = found
    weights = [weight for _, weight in found]
    return Target(deployment, adapter, [each for each, _ in others], weights, shadow)


def find_shadow(session: Session, tenant: str, ref: str) -> Shadow | None:
    """Of `repo@alias`."""
    repo, at, name = ref.partition("@")
    alias = session.get(Alias, (tenant, repo, name)) if at and "/" not in repo else None
    if alias is None or alias.shadow is None:
        return None
    version = f"{repo}/{alias.shadow}"
    there = find_adapter(session, tenant, version) is not None
    return Shadow(version, alias.shadow_percent) if there else None


def find_named(session: Session, tenant: str, ref: str) -> Named | None:
    """What `repo/version` or `repo@alias` means."""
    repo, at, name = ref.partition("@")
    if not at or "/" in repo:
        adapter = find_adapter(session, tenant, ref)
        return [(adapter, 1)] if adapter else None
    alias = session.get(Alias, (tenant, repo, name))
    weights = alias.weights if alias else {}
    found = [(find_adapter(session, tenant, f"{repo}/{v}"), w) for v, w in weights.items()]
    return [(adapter, weight) for adapter, weight in found if adapter is not None] or None


def _unknown(model: str) -> ApiError:
    return ApiError(
        404,
        "model_not_found",
        f"The model {model!r} does not exist. GET /v1/models lists what you can use.",
        param="model",
    )
