"""Aliases: `repo@prod` is a version, or several and how much of the traffic each; moved at once."""

import re
from collections.abc import Mapping

from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.registry import repos, versions
from loraplex import storage_quota
from loraplex.entities import Alias, Repo, utc_now

_NAME = re.compile(r"[a-z]([a-z0-9_-]{0,30}[a-z0-9])?")
_MOST_VERSIONS = 16


def put(session: Session, tenant: str, repo: Repo, name: str, weights: Mapping[int, int]) -> Alias:
    """What comes from now on has these; what runs keeps its version. Raises ApiError."""
    if not _NAME.fullmatch(name):
        wanted = "1 to 32 lower-case letters, digits, '_' and '-', a letter first."
        raise bad_request(f"{name[:80]!r} is no name of an alias: {wanted}", "alias")
    if not 0 < len(weights) <= _MOST_VERSIONS:
        raise bad_request(f"versions: 1 to {_MOST_VERSIONS} of them.", "versions")
    rows = [versions.need(session, tenant, f"{repo.name}/{number}") for number in weights]
    bases = {row.base_model for row in rows}
    if len(bases) > 1:
        message = f"versions: they are for different base models: {', '.join(sorted(bases))}."
        raise bad_request(message, "versions")
    storage_quota.lock(session, tenant)  # two that are the first would both add it
    found = session.get(Alias, (tenant, repo.name, name), populate_existing=True)
    given = {str(number): weight for number, weight in weights.items()}
    if found is None:
        found = Alias(
            tenant_id=tenant,
            repo=repo.name,
            name=name,
            base_model=bases.pop(),
            weights=given,
            previous={},
        )
    elif found.weights != given:
        base_model = bases.pop()
        if base_model != found.base_model:  # its shadow is of the other one
            found.shadow, found.shadow_percent = None, 0.0
        found.base_model, found.previous, found.weights = base_model, found.weights, given
        found.changed_at = utc_now()
    return _stored(session, found)


def promote(session: Session, alias: Alias) -> Alias:
    """Its newest version gets all of the traffic. Raises ApiError 409 when it has it already."""
    if len(alias.weights) == 1:
        message = f"{alias.ref} is one version already: {alias.repo}/{next(iter(alias.weights))}."
        raise ApiError(409, "conflict", message)
    newest = str(max(map(int, alias.weights)))
    alias.previous, alias.weights, alias.changed_at = alias.weights, {newest: 1}, utc_now()
    return _stored(session, alias)


def roll_back(session: Session, tenant: str, alias: Alias) -> Alias:
    """To what it was before its last change; again: back to what it is now. Raises ApiError."""
    if not alias.previous:
        raise ApiError(409, "conflict", f"{alias.ref} was never anything else.")
    for number in alias.previous:
        versions.need(session, tenant, f"{alias.repo}/{number}")
    alias.previous, alias.weights = alias.weights, alias.previous
    alias.changed_at = utc_now()
    return _stored(session, alias)


def shadow(session: Session, alias: Alias, version: int | None, percent: float) -> Alias:
    """None: none any more. Raises ApiError 400 for a version of another base model, 404."""
    if version is not None:
        row = versions.need(session, alias.tenant_id, f"{alias.repo}/{version}")
        if row.base_model != alias.base_model:
            message = f"{row.ref} is for {row.base_model}, {alias.ref} for {alias.base_model}."
            raise bad_request(message, "version")
        if list(alias.weights) == [str(version)]:
            raise bad_request(f"{alias.ref} is {row.ref} itself.", "version")
    alias.shadow, alias.shadow_percent = version, percent
    return _stored(session, alias)


def need(session: Session, tenant: str, repo: str, name: str) -> Alias:
    """Locked until the session ends. Raises ApiError 404."""
    named = repos.need(session, tenant, repo).name
    found = session.get(Alias, (tenant, named, name), with_for_update=True)
    if found is None:
        message = f"There is no alias {f'{repo}@{name}'[:80]!r}."
        raise ApiError(404, "not_found", message, param="alias")
    return found


def of_tenant(session: Session, tenant: str) -> list[Alias]:
    wanted = select(Alias).where(Alias.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(Alias.repo), col(Alias.name))))


def delete(session: Session, alias: Alias) -> None:
    session.delete(alias)
    session.commit()


def _stored(session: Session, alias: Alias) -> Alias:
    session.add(alias)
    session.commit()
    session.refresh(alias)
    return alias
