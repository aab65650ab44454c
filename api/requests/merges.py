"""Merged adapters for requests: looked up, or made one after the other in a thread of their own,
because each takes as much memory as all of its parts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine
from sqlmodel import Session

from api.errors import ApiError, bad_request
from loraplex import storage_quota
from loraplex.limits import StorageLimit
from loraplex.store.adapters import AdapterInvalid
from loraplex.store.merged import MergedAdapters, MergeRefused
from loraplex.store.merging import Merge


class Merges:
    def __init__(self, merged: MergedAdapters, database: Engine, limit: StorageLimit) -> None:
        self._merged = merged
        self._database = database
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="merges")

    async def digest(self, tenant: str, how: Merge) -> str:
        """`how.adapters`: digests. Raises ApiError."""
        try:
            known = await run_in_threadpool(self._merged.known, tenant, how)
        except OSError:  # the store is away: it may be made of copies
            known = None
        if known is not None:
            return known
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._make, tenant, how)

    def _make(self, tenant: str, how: Merge) -> str:
        try:
            return self._merged.make(tenant, how, self._room(tenant))
        except AdapterInvalid as refused:
            raise bad_request(f"Adapter refused: {refused}", "merged_adapters") from refused
        except MergeRefused as refused:
            raise ApiError(409, "too_many_merges", str(refused)) from refused
        except FileNotFoundError as gone:
            message = "The files of an adapter that was to be merged are gone."
            raise bad_request(message, "merged_adapters") from gone
        except OSError as away:
            message = "The store of adapters can't be reached just now."
            raise ApiError(503, "storage_unavailable", message, retry_after_s=5) from away

    def _room(self, tenant: str) -> float:
        """Bytes."""
        if self._limit.gib is None:
            return float("inf")
        with Session(self._database) as session:
            used = storage_quota.used(session, tenant, self._limit.kept_s)
        return self._limit.gib * 2**30 - used
