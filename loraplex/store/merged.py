"""Merged adapters: made when they are asked for, kept in the adapter store as long as others that
are used, found again by what they are made of."""

import hashlib
import time
from pathlib import Path

from loraplex.store.adapters import AdapterStore
from loraplex.store.merging import Merge, merge
from loraplex.store.peft_checks import CONFIG, WEIGHTS

_DAY_S = 86400.0


class TooManyMerges(Exception):
    """A tenant has asked for too many different ones today."""


class MergedAdapters:
    """`most`: different ones of a tenant in a day: each takes as much disk as an adapter."""

    def __init__(self, store: AdapterStore, root: Path, most: int) -> None:
        self._store = store
        self._root = root
        self._most = most

    def digest(self, tenant: str, how: Merge) -> str:
        """`how.adapters`: digests. Raises AdapterInvalid, TooManyMerges, and OSError where the
        files of an adapter are gone."""
        notes = self._root / hashlib.sha256(tenant.encode()).hexdigest()[:16]
        note = notes / how.key
        if note.exists():
            known = note.read_text()
            if self._store.use(known):
                return known
        elif self._today(notes) >= self._most:
            message = f"At most {self._most} different merges a day: register the ones you use."
            raise TooManyMerges(message)
        folders = [self._store.folder(digest) for digest in how.adapters]
        files = [((f / CONFIG).read_bytes(), (f / WEIGHTS).read_bytes()) for f in folders]
        made = self._store.put(*merge(how, files), None).digest
        notes.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(f".{time.monotonic_ns()}")
        fresh.write_text(made)
        fresh.rename(note)
        return made

    def _today(self, notes: Path) -> int:
        """Older notes are removed: what they name is found again when it is asked for."""
        found = list(notes.iterdir()) if notes.is_dir() else []
        old = [note for note in found if note.stat().st_mtime < time.time() - _DAY_S]
        for note in old:
            note.unlink(missing_ok=True)
        return len(found) - len(old)
