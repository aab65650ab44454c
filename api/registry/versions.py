"""Versions of adapters: `repo/1`, `repo/2` … Registered once, never changed."""

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from api.control.deployments import check_base_model
from api.errors import ApiError, bad_request
from api.registry import quota, repos
from api.requests.resolve import find_adapter
from api.state import State
from loraplex.entities import Adapter, utc_now
from loraplex.store.adapters import AdapterInvalid, AdapterStore

_TRIES = 5


def register(
    state: State, tenant: str, repo: str, base_model: str, config: bytes, weights: bytes
) -> Adapter:
    """Check, store, and count as the next version; the same files again give the one they have.

    `base_model`: instead of the name in the config (a local path, say). Raises ApiError.
    """
    repos.check_name(repo)
    try:
        named = base_model or AdapterStore.base_model_of(config)
        if not named:
            raise bad_request(
                "Name the base model: adapter_config.json has no base_model_name_or_path.",
                "base_model",
            )
        check_base_model(state, named)
        with Session(state.database) as session:
            quota.check(session, state.settings, tenant, len(config) + len(weights))
        facts = state.adapters.put(config, weights, state.models.find(named))
    except AdapterInvalid as refused:
        raise bad_request(f"Adapter refused: {refused}", "adapter", "adapter_refused") from refused
    for _ in range(_TRIES):  # another registration may take the same number
        with Session(state.database, expire_on_commit=False) as session:
            repos.create(session, tenant, repo, "", exists_ok=True)
            for there in repos.versions(session, tenant, repo):
                if (there.digest, there.base_model) == (facts.digest, named):
                    return there
            numbers = select(func.max(Adapter.version))
            mine = (Adapter.tenant_id == tenant, Adapter.repo == repo)
            newest = session.exec(numbers.where(*mine)).one()
            row = Adapter(
                tenant_id=tenant,
                repo=repo,
                version=(newest or 0) + 1,
                base_model=named,
                digest=facts.digest,
                rank=facts.rank,
                targets=facts.targets,
                size_bytes=facts.size_bytes,
            )
            session.add(row)
            try:
                session.commit()
                return row
            except IntegrityError:
                session.rollback()
    raise ApiError(409, "conflict", f"Repo {repo!r} is being written to; try again.")


def need(session: Session, tenant: str, ref: str) -> Adapter:
    """By `repo/version`. Raises ApiError 404."""
    found = find_adapter(session, tenant, ref)
    if found is None:
        raise ApiError(404, "not_found", f"There is no adapter {ref[:80]!r}.", param="adapter")
    return found


def of_tenant(session: Session, tenant: str, *, archived: bool) -> list[Adapter]:
    wanted = select(Adapter).where(Adapter.tenant_id == tenant, col(Adapter.deleted_at).is_(None))
    if not archived:
        wanted = wanted.where(col(Adapter.archived).is_(False))
    return list(session.exec(wanted.order_by(col(Adapter.repo), col(Adapter.version))))


def archive(session: Session, version: Adapter, archived: bool) -> None:
    version.archived = archived
    session.add(version)
    session.commit()


def delete(session: Session, version: Adapter) -> None:
    """Answers under way go on: the files stay until none can need them."""
    version.deleted_at = utc_now()
    session.add(version)
    session.commit()
