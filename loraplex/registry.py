"""Adapters by name, and their registration by whichever process has their files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from loraplex import storage_quota
from loraplex.entities import Adapter, Repo, TrainingJob
from loraplex.limits import StorageLimit
from loraplex.store.adapters import AdapterInvalid, AdapterStore, digest_of
from loraplex.store.models import ModelStore, ModelUnavailable

_TRIES = 5
_TAG = re.compile("([1-9][0-9]{0,8})(?:@([1-9][0-9]{0,8}))?")


class RegistrationRefused(Exception):
    """`code`: adapter_refused, base_model, storage_full or conflict."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Origin:
    """What an adapter was made of. `version`: the number that was kept for it; `checkpoint`: it is
    what its training had learned after so many steps."""

    version: int = 0
    checkpoint: int = 0
    lineage: Mapping[str, Any] = field(default_factory=dict)


UNKNOWN = Origin()


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
        origin: Origin = UNKNOWN,
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
            version=origin.version,
            checkpoint=origin.checkpoint,
            base_model=named,
            digest=facts.digest,
            rank=facts.rank,
            targets=facts.targets,
            size_bytes=facts.size_bytes,
            lineage=dict(origin.lineage),
        )
        for _ in range(_TRIES):  # another registration may take the same number
            with Session(self.database, expire_on_commit=False) as session:
                try:
                    made = _next_version(session, new, self.limit)
                    self.adapters.ensure(made.digest)
                    return made
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
    there = select(Adapter).where(*mine, Adapter.checkpoint == new.checkpoint)
    if new.checkpoint:  # its training may come to the same step again
        there = there.where(Adapter.version == new.version)
    else:
        there = there.where(
            Adapter.digest == new.digest,
            Adapter.base_model == new.base_model,
            col(Adapter.deleted_at).is_(None),
        )
    same = session.exec(there).first()
    if same is not None:
        session.commit()
        return same
    storage_quota.check(session, new.tenant_id, new.size_bytes, limit)
    version = new.version or next_version(session, new.tenant_id, new.repo)
    row = Adapter(**new.model_dump(exclude={"id", "version"}), version=version)
    session.add(row)
    session.commit()
    return row


def checkpoints_of(job: TrainingJob) -> SelectOfScalar[Adapter]:
    """Those that are there, the newest first."""
    wanted = select(Adapter).where(
        Adapter.tenant_id == job.tenant_id,
        Adapter.repo == job.repo,
        Adapter.version == job.version,
        Adapter.checkpoint > 0,
        col(Adapter.deleted_at).is_(None),
    )
    return wanted.order_by(col(Adapter.checkpoint).desc())


def next_version(session: Session, tenant: str, repo: str) -> int:
    """A number that no version has, had, or is kept for."""
    of_versions = select(func.max(Adapter.version)).where(
        Adapter.tenant_id == tenant, Adapter.repo == repo
    )
    of_jobs = select(func.max(TrainingJob.version)).where(
        TrainingJob.tenant_id == tenant, TrainingJob.repo == repo
    )
    return max(session.exec(of_versions).one() or 0, session.exec(of_jobs).one() or 0) + 1


def find_adapter(session: Session, tenant: str, ref: str) -> Adapter | None:
    """By `repo/version`, or `repo/version@step` for a checkpoint of its training."""
    repo, _, tag = ref.rpartition("/")
    named = _TAG.fullmatch(tag)
    if not repo or named is None:
        return None
    return session.exec(
        select(Adapter).where(
            Adapter.tenant_id == tenant,
            Adapter.repo == repo,
            Adapter.version == int(named[1]),
            Adapter.checkpoint == int(named[2] or 0),
            col(Adapter.deleted_at).is_(None),
        )
    ).first()
