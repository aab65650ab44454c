"""Repos: names under which a tenant's adapters have versions."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from api.errors import ApiError, bad_request
from loraplex.entities import Adapter, Alias, Repo, utc_now

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MOST = 10_000  # of a tenant
_MOST_NAMED = 500  # in a query


def check_name(name: str) -> None:
    """Raises ApiError 400."""
    if not _NAME.fullmatch(name):
        wanted = "1 to 63 letters, digits, '.', '_' and '-', not at the ends."
        raise bad_request(f"{name[:80]!r} is no name of a repo: {wanted}", "repo")


def create(session: Session, tenant: str, name: str, description: str, *, exists_ok: bool) -> Repo:
    """Commits. Raises ApiError: 400 for a name that can't be one, 409 for one that is taken."""
    check_name(name)
    found = find(session, tenant, name)
    if found is None:
        count = select(func.count()).where(col(Repo.tenant_id) == tenant)
        if session.exec(count).one() >= _MOST:
            raise ApiError(409, "too_many", f"A tenant has at most {_MOST} repos. Delete some.")
        session.add(Repo(tenant_id=tenant, name=name, description=description))
        try:
            session.commit()
            return need(session, tenant, name)
        except IntegrityError:  # somebody else made it just now
            session.rollback()
            found = need(session, tenant, name)
    if not exists_ok:
        raise ApiError(409, "repo_exists", f"Repo {name!r} exists already.", param="name")
    return found


def find(session: Session, tenant: str, name: str) -> Repo | None:
    return session.exec(select(Repo).where(Repo.tenant_id == tenant, Repo.name == name)).first()


def need(session: Session, tenant: str, name_or_id: str) -> Repo:
    """Raises ApiError 404."""
    named = or_(col(Repo.name) == name_or_id, col(Repo.id) == name_or_id)
    found = session.exec(select(Repo).where(Repo.tenant_id == tenant, named)).all()
    if not found:
        raise ApiError(404, "not_found", f"There is no repo {name_or_id[:80]!r}.", param="repo")
    return max(found, key=lambda repo: repo.name == name_or_id)


def list_all(session: Session, tenant: str, most: int) -> list[Repo]:
    """The newest first."""
    wanted = select(Repo).where(Repo.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(Repo.created_at).desc()).limit(most)))


def live(tenant: str) -> SelectOfScalar[Adapter]:
    """Versions that are there; checkpoints belong to their jobs."""
    return select(Adapter).where(
        Adapter.tenant_id == tenant, Adapter.checkpoint == 0, col(Adapter.deleted_at).is_(None)
    )


def versions(session: Session, tenant: str, repo: str) -> list[Adapter]:
    """Those that are not deleted, archived ones too."""
    wanted = live(tenant).where(Adapter.repo == repo)
    return list(session.exec(wanted.order_by(col(Adapter.version))))


def versions_of(
    session: Session, tenant: str, names: Sequence[str]
) -> defaultdict[str, list[Adapter]]:
    """The same of several repos, by their names."""
    found: defaultdict[str, list[Adapter]] = defaultdict(list)
    for part in _parts(names):
        wanted = live(tenant).where(col(Adapter.repo).in_(part))
        for version in session.exec(wanted.order_by(col(Adapter.version))):
            found[version.repo].append(version)
    return found


def _parts(names: Sequence[str]) -> Iterator[list[str]]:
    left = iter(names)
    while part := list(islice(left, _MOST_NAMED)):
        yield part


def delete(session: Session, tenant: str, repo: Repo) -> None:
    """With its versions and aliases; made again, it goes on counting where it was."""
    of_it = (col(Alias.tenant_id) == tenant, col(Alias.repo) == repo.name)
    session.execute(sql_delete(Alias).where(*of_it))
    session.delete(repo)
    session.flush()
    live = (
        col(Adapter.tenant_id) == tenant,
        col(Adapter.repo) == repo.name,
        col(Adapter.deleted_at).is_(None),
    )
    session.execute(update(Adapter).where(*live).values(deleted_at=utc_now()))
    session.commit()
