"""Files of deleted adapters go when nobody can need them; those of others stay."""

import os
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlmodel import Session

from loraplex.apikeys import FIRST_TENANT
from loraplex.database import connect
from loraplex.entities import Adapter, Tenant, utc_now
from loraplex.store.adapters import AdapterStore
from tests.conftest import ADAPTERS

KEPT_S = 3600.0
_OTHER = count()  # contents: the database has those of the tests before


@pytest.mark.parametrize(
    ("deleted", "gone"),
    [([None], False), ([7200], True), ([60], False), ([7200, None], False), ([], True)],
    ids=["live", "deleted", "deleted just now", "another's", "nobody's"],
)
def test_adapters_are_kept_as_long_as_a_request_may_need_them(
    deleted: list[float | None], gone: bool, database_url: str, tmp_path: Path
) -> None:
    store = AdapterStore(tmp_path)
    config, weights = (
        (ADAPTERS / "pirate" / name).read_bytes()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    config += b" " * next(_OTHER)
    facts = store.put(config, weights, None)
    os.utime(store.folder(facts.digest), (0, 0))
    database = connect(database_url)
    with Session(database) as session:
        if session.get(Tenant, FIRST_TENANT) is None:
            session.add(Tenant(id=FIRST_TENANT))
            session.commit()
        for number, ago_s in enumerate(deleted, 1):
            session.add(
                Adapter(
                    tenant_id=FIRST_TENANT,
                    repo=f"r{len(config)}",
                    version=number,
                    base_model="m",
                    digest=facts.digest,
                    rank=facts.rank,
                    targets=facts.targets,
                    size_bytes=facts.size_bytes,
                    deleted_at=utc_now() - timedelta(seconds=ago_s) if ago_s else None,
                )
            )
        session.commit()
    from scheduler.tasks.storage import clean_adapters

    assert clean_adapters(database, store, KEPT_S) == int(gone)
    assert store.folder(facts.digest).exists() == (not gone)
    database.dispose()
