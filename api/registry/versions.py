"""Versions of adapters: `repo/1`, `repo/2` … Registered once, never changed."""

import logging
from collections.abc import Iterator

from sqlalchemy import and_, or_, update
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.registry import repos
from api.state import State
from loraplex import storage_quota
from loraplex.entities import Adapter, Alias, utc_now
from loraplex.registry import RegistrationRefused, find_adapter

log = logging.getLogger(__name__)

_PAGE = 500
_PARAMS = {"base_model": "base_model", "adapter_refused": "adapter"}


def register(
    state: State, tenant: str, repo: str, base_model: str, config: bytes, weights: bytes
) -> Adapter:
    """As `Registry.register`. Raises ApiError."""
    repos.check_name(repo)
    try:
        return state.registry.register(tenant, repo, base_model, config, weights)
    except RegistrationRefused as refused:
        status = 409 if refused.code in ("storage_full", "conflict") else 400
        code = "invalid_value" if refused.code == "base_model" else refused.code
        param = _PARAMS.get(refused.code)
        raise ApiError(status, code, str(refused), param=param) from refused
    except OSError as away:
        log.warning("an adapter is not stored: %s", away)
        message = "The store of adapters can't be reached just now."
        raise ApiError(503, "storage_unavailable", message, retry_after_s=10) from away


def need(session: Session, tenant: str, ref: str) -> Adapter:
    """By `repo/version`. Raises ApiError 404."""
    found = find_adapter(session, tenant, ref)
    if found is None:
        raise ApiError(404, "not_found", f"There is no adapter {ref[:80]!r}.", param="adapter")
    return found


def of_tenant(
    session: Session, tenant: str, *, archived: bool, after: str | None = None
) -> Iterator[Adapter]:
    """By repo and version, as they are read; `after`: those behind this `repo/version`. Raises
    ApiError 400."""
    wanted = repos.live(tenant)
    if not archived:
        wanted = wanted.where(col(Adapter.archived).is_(False))
    if after is not None:
        repo, _, version = after.rpartition("/")
        if not repo or not version.isdecimal() or len(version) > 9:
            raise bad_request(f"after: {after[:80]!r} is no REPO/VERSION.", "after")
        behind = and_(col(Adapter.repo) == repo, col(Adapter.version) > int(version))
        wanted = wanted.where(or_(col(Adapter.repo) > repo, behind))
    ordered = wanted.order_by(col(Adapter.repo), col(Adapter.version))
    yield from session.exec(ordered.execution_options(yield_per=_PAGE))


def archive(session: Session, version: Adapter, archived: bool) -> None:
    version.archived = archived
    session.add(version)
    session.commit()


def tag(session: Session, version: Adapter, tags: dict[str, str]) -> None:
    version.tags = tags
    session.add(version)
    session.commit()


def has_tag(version: Adapter, wanted: str) -> bool:
    """`name=value`, or `name` with any value."""
    name, given, value = wanted.partition("=")
    return name in version.tags and (not given or version.tags[name] == value)


def delete(session: Session, version: Adapter) -> None:
    """With its training's checkpoints. Answers under way go on: the files stay until none can need
    them. Raises ApiError 409 while an alias means it."""
    storage_quota.lock(session, version.tenant_id)  # no alias comes to mean it meanwhile
    wanted = select(Alias).where(Alias.tenant_id == version.tenant_id, Alias.repo == version.repo)
    for alias in session.exec(wanted):
        if version.tag in alias.weights:
            message = f"{alias.ref} is {version.ref}: move or delete the alias first."
            raise ApiError(409, "conflict", message)
        if version.tag in alias.previous:  # there is nothing to roll back to any more
            alias.previous = {}
            session.add(alias)
    with_it = [
        col(Adapter.tenant_id) == version.tenant_id,
        col(Adapter.repo) == version.repo,
        col(Adapter.version) == version.version,
        col(Adapter.deleted_at).is_(None),
    ]
    if version.checkpoint:
        with_it.append(col(Adapter.checkpoint) == version.checkpoint)
    session.execute(update(Adapter).where(*with_it).values(deleted_at=utc_now()))
    session.commit()
