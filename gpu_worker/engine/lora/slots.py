"""Which adapters are in memory: loaded when first used, the least recently used one leaves."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu_worker.engine.lora.checkpoint import read
from gpu_worker.engine.lora.linears import Weights
from gpu_worker.engine.request import AdapterRefused


@dataclass(slots=True)
class ResidentAdapter:
    weights: Weights
    users: int = 0  # requests in the engine that need it; pinned while there are any


class AdapterSlots:
    """At most `limit` adapters at once, named by digest. Pinned ones stay."""

    def __init__(
        self,
        limit: int,
        locate: Callable[[str], Path],
        shapes: Mapping[str, tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.limit = limit
        self._locate = locate
        self._shapes = shapes
        self._dtype = dtype
        self._device = device
        self._resident: OrderedDict[str, ResidentAdapter] = OrderedDict()

    def __getitem__(self, digest: str) -> ResidentAdapter:
        return self._resident[digest]

    @property
    def digests(self) -> list[str]:
        return list(self._resident)

    def pin(self, digest: str) -> None:
        """Make it resident and keep it until `unpin`. Raises AdapterRefused."""
        if digest not in self._resident:
            self._make_room()
            folder = self._locate(digest)
            self._resident[digest] = ResidentAdapter(
                read(folder, self._shapes, self._dtype, self._device)
            )
        self._resident.move_to_end(digest)
        self._resident[digest].users += 1

    def unpin(self, digest: str) -> None:
        self._resident[digest].users -= 1

    def _make_room(self) -> None:
        while len(self._resident) >= self.limit:
            idle = next((d for d, a in self._resident.items() if not a.users), None)
            if idle is None:
                raise AdapterRefused("every adapter slot of this replica is in use; try again")
            del self._resident[idle]
