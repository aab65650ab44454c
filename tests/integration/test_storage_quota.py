"""What a tenant may store is one bound for all that store at once; what it deletes counts until its
files are removed."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import Engine
from sqlmodel import Session, select

from loraplex.database import connect
from loraplex.entities import Adapter, StoredFile, Tenant, new_id, utc_now
from loraplex.limits import StorageLimit
from loraplex.registry import RegistrationRefused, Registry
from loraplex.storage_quota import StorageFull, check, used
from loraplex.store.adapters import AdapterStore
from loraplex.store.models import ModelStore

LINEAR = "base_model.model.model.layers.0.self_attn.q_proj"
KEPT_S = 3600.0


def files(number: int) -> tuple[bytes, bytes]:
    tensors = {
        f"{LINEAR}.lora_A.weight": np.full((8, 64), number, np.float32),
        f"{LINEAR}.lora_B.weight": np.ones((64, 8), np.float32),
    }
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": "org/m"}
    return json.dumps(config).encode(), save(tensors)


SIZE = sum(map(len, files(1)))


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def tenant(database: Engine) -> str:
    name = new_id("t")
    with Session(database) as session:
        session.add(Tenant(id=name))
        session.commit()
    return name


def registry(database: Engine, folder: Path, room: int) -> Registry:
    """For `room` adapters."""
    models = ModelStore(folder / "models", allow_local=False)
    limit = StorageLimit((room + 0.5) * SIZE / 2**30, KEPT_S)
    return Registry(database, AdapterStore(folder / "adapters"), models, limit)


def test_ten_at_once_get_no_more_than_there_is(
    database: Engine, tenant: str, tmp_path: Path
) -> None:
    into = registry(database, tmp_path, room=4)

    def register(number: int) -> bool:
        try:
            into.register(tenant, "r", "", *files(number))
        except RegistrationRefused as refused:
            assert refused.code in ("storage_full", "conflict"), refused
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert sum(pool.map(register, range(10))) <= 4
    for number in range(10):
        register(number)
    with Session(database) as session:
        rows = session.exec(select(Adapter).where(Adapter.tenant_id == tenant)).all()
        assert len(rows) == 4 and sorted(row.version for row in rows) == [1, 2, 3, 4]
        assert used(session, tenant, KEPT_S) == 4 * SIZE


def test_the_same_content_again_needs_no_room(
    database: Engine, tenant: str, tmp_path: Path
) -> None:
    into = registry(database, tmp_path, room=1)
    first = into.register(tenant, "r", "", *files(1))
    assert into.register(tenant, "r", "", *files(1)).ref == first.ref
    with pytest.raises(RegistrationRefused, match="LORAPLEX_TENANT_STORAGE_GIB"):
        into.register(tenant, "r", "", *files(2))


def test_what_was_deleted_counts_until_its_files_are_removed(
    database: Engine, tenant: str, tmp_path: Path
) -> None:
    row = registry(database, tmp_path, room=1).register(tenant, "r", "", *files(1))
    with Session(database) as session:
        for ago_s, counts in ((60.0, SIZE), (KEPT_S + 60, 0)):
            row.deleted_at = utc_now() - timedelta(seconds=ago_s)
            session.merge(row)
            session.commit()
            assert used(session, tenant, KEPT_S) == counts
        session.add(StoredFile(tenant_id=tenant, filename="f", purpose="batch", bytes=100))
        session.commit()
        check(session, tenant, 10, StorageLimit(110 / 2**30, KEPT_S))
        with pytest.raises(StorageFull):
            check(session, tenant, 11, StorageLimit(110 / 2**30, KEPT_S))
