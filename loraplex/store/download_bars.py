"""huggingface_hub's progress bars → a function that is told the bytes of all of them together."""

import threading
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm


def told_bars(tell: Callable[[float, float], None]) -> type[Any]:
    """A class of bars that draw nothing and tell (bytes here, bytes in all)."""
    here: dict[int, float] = {}
    totals: dict[int, float] = {}
    lock = threading.Lock()

    class Told(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self._bytes and self.total:
                with lock:
                    here[id(self)], totals[id(self)] = float(self.n), float(self.total)
                    sums = sum(here.values()), sum(totals.values())
                tell(*sums)
            return shown

    return Told


class _Nowhere:
    def write(self, _: str) -> None:
        """A bar that is told needs no terminal."""

    def flush(self) -> None:
        """Nor this."""
