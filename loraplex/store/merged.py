"""Merged adapters: made when they are asked for, kept in the adapter store as long as others that
are used, found again by what they are made of.

A note for each: a file named by the merge, with the digest of what it gave and its size; empty
while it was only tried.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from loraplex.store.adapter_folders import older
from loraplex.store.adapters import AdapterStore
from loraplex.store.merging import Merge, merge
from loraplex.store.peft_checks import CONFIG, WEIGHTS, AdapterInvalid

_DAY_S = 86400.0


class MergeRefused(Exception):
    """A tenant has asked for too many different ones today, or has no room for more."""


class MergedAdapters:
    """`most`: different ones of a tenant in a day. `most_bytes`: of what is merged, and of what it
    gives."""

    def __init__(self, store: AdapterStore, root: Path, most: int, most_bytes: int) -> None:
        self._store = store
        self._root = root
        self._most = most
        self._most_bytes = most_bytes

    def known(self, tenant: str, how: Merge) -> str | None:
        """The digest of one that is here. `how.adapters`: digests."""
        note = self._note(tenant, how)
        with suppress(FileNotFoundError):
            digest = note.read_text().partition(" ")[0]
            if digest and self._store.use(digest):
                os.utime(note)
                return digest
        return None

    def make(self, tenant: str, how: Merge, room: float) -> str:
        """Its digest. `room`: bytes that the tenant may store. Raises AdapterInvalid, MergeRefused,
        and OSError where the files of an adapter are gone."""
        note = self._note(tenant, how)
        note.parent.mkdir(parents=True, exist_ok=True)
        kept = self._today(note.parent)
        if note.name not in kept and len(kept) >= self._most:
            message = f"At most {self._most} different merges a day: register the ones you use."
            raise MergeRefused(message)
        if sum(kept.values()) >= room:
            raise MergeRefused("This tenant's storage is full (LORAPLEX_TENANT_STORAGE_GIB).")
        note.touch()  # a try counts
        folders = [self._store.locate(digest) for digest in how.adapters]
        if sum((folder / WEIGHTS).stat().st_size for folder in folders) > self._most_bytes:
            raise AdapterInvalid(f"together they have over {self._most_bytes} bytes.")
        files = [((f / CONFIG).read_bytes(), (f / WEIGHTS).read_bytes()) for f in folders]
        made = self._store.put(*merge(how, files, self._most_bytes), None)
        fresh = note.with_suffix(f".{time.monotonic_ns()}")
        fresh.write_text(f"{made.digest} {made.size_bytes}")
        fresh.rename(note)
        return made.digest

    def _note(self, tenant: str, how: Merge) -> Path:
        return self._root / hashlib.sha256(tenant.encode()).hexdigest()[:16] / how.key

    def _today(self, notes: Path) -> dict[str, int]:
        """Those that were used within a day, and their bytes; others are removed: what they name is
        made anew when it is asked for."""
        found = {}
        for note in notes.iterdir():
            if older(note, _DAY_S):
                note.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):
                found[note.name] = int(note.read_text().partition(" ")[2] or 0)
        return found
