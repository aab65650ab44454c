"""Registration of an adapter's version, by whichever process has its files."""

from dataclasses import dataclass

from sqlalchemy import Engine, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from loraplex import storage_quota
from loraplex.entities import Adapter, Repo, TrainingJob
from loraplex.limits import StorageLimit
from loraplex.store.adapters import AdapterInvalid, AdapterStore, digest_of
from loraplex.store.models import ModelStore, ModelUnavailable

_TRIES = 5


class RegistrationRefused(Exception):
    """`code`: adapter_refused, base_model, storage_full or conflict."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Registry:
    database: Engine
    adapters: AdapterStore
    models: ModelStore
    limit: StorageLimit

    def register(
        self,
        tenant: str,
        repo: str,
        base_model: str,
        config: bytes,
        weights: bytes,
        version: int | None = None,
    ) -> Adapter:
        """Check, store, and count as the next version, or as one that was kept for it; the same
        files give the one they have.

        `base_model`: instead of the name in the config (a local path, say). Raises
        RegistrationRefused.
        """
        try:
            named = base_model or AdapterStore.base_model_of(config)
            self._check_base_model(named)
            self._check_room(tenant, config, weights)
            facts = self.adapters.put(config, weights, self.models.find(named))
        except AdapterInvalid as refused:
            raise RegistrationRefused("adapter_refused", f"Adapter refused: {refused}") from refused
        except storage_quota.StorageFull as full:
            raise _full(full) from full
        new = Adapter(
            tenant_id=tenant,
            repo=repo,
            version=version or 0,
            base_model=named,
            digest=facts.digest,
            rank=facts.rank,
            targets=facts.targets,
            size_bytes=facts.size_bytes,
        )
        for _ in range(_TRIES):  # another registration may take the same number
            with Session(self.database, expire_on_commit=False) as session:
                try:
                    return _next_version(session, new, self.limit)
                except IntegrityError:
                    session.rollback()
                except storage_quota.StorageFull as full:
                    raise _full(full) from full
        raise RegistrationRefused("conflict", f"Repo {repo!r} is being written to; try again.")

    def _check_room(self, tenant: str, config: bytes, weights: bytes) -> None:
        """What is there already takes nothing. Raises StorageFull."""
        if self.limit.gib is None:
            return
        there = select(Adapter.id).where(
            Adapter.tenant_id == tenant,
            Adapter.digest == digest_of(config, weights),
            col(Adapter.deleted_at).is_(None),
        )
        with Session(self.database) as session:
            if session.exec(there).first() is None:
                storage_quota.check(session, tenant, len(config) + len(weights), self.limit)

    def _check_base_model(self, name: str) -> None:
        if not name:
            wanted = "adapter_config.json has no base_model_name_or_path"
            raise RegistrationRefused("base_model", f"Name the base model: {wanted}.")
        try:
            self.models.check_name(name)
        except ModelUnavailable as refused:
            raise RegistrationRefused("base_model", str(refused)) from refused


def _full(full: storage_quota.StorageFull) -> RegistrationRefused:
    return RegistrationRefused("storage_full", str(full))


def _next_version(session: Session, new: Adapter, limit: StorageLimit) -> Adapter:
    """Commits. Raises IntegrityError when another process was faster, StorageFull."""
    storage_quota.lock(session, new.tenant_id)
    mine = (Adapter.tenant_id == new.tenant_id, Adapter.repo == new.repo)
    repo = select(Repo).where(Repo.tenant_id == new.tenant_id, Repo.name == new.repo)
    if session.exec(repo).first() is None:
        session.add(Repo(tenant_id=new.tenant_id, name=new.repo))
        session.flush()
    same = session.exec(
        select(Adapter).where(
            *mine,
            Adapter.digest == new.digest,
            Adapter.base_model == new.base_model,
            col(Adapter.deleted_at).is_(None),
        )
    ).first()
    if same is not None:
        session.commit()
        return same
    storage_quota.check(session, new.tenant_id, new.size_bytes, limit)
    version = new.version or next_version(session, new.tenant_id, new.repo)
    row = Adapter(**new.model_dump(exclude={"id", "version"}), version=version)
    session.add(row)
    session.commit()
    return row


def next_version(session: Session, tenant: str, repo: str) -> int:
    """A number that no version has, had, or is kept for."""
    of_versions = select(func.max(Adapter.version)).where(
        Adapter.tenant_id == tenant, Adapter.repo == repo
    )
    of_jobs = select(func.max(TrainingJob.version)).where(
        TrainingJob.tenant_id == tenant, TrainingJob.repo == repo
    )
    return max(session.exec(of_versions).one() or 0, session.exec(of_jobs).one() or 0) + 1
