"""Virtual token counters: who has been served least comes next. No torch.

After Sheng et al., "Fairness in Serving Large Language Models" (OSDI '24): each tenant has a
counter of the work done for it; the waiting tenant with the smallest is served first; one that
comes back is lifted to the smallest counter of the active ones, so that idling saves up nothing.
"""

from collections.abc import Iterable

INPUT_WEIGHT = 1.0
OUTPUT_WEIGHT = 2.0  # an output token costs a pass over the weights that few others share


class VirtualCounters:
    def __init__(self) -> None:
        self._served: dict[str, float] = {}

    def arrive(self, tenant: str, active: Iterable[str]) -> None:
        """A tenant without other requests in the engine sends one; `active` are those with some."""
        floor = min((self._served[t] for t in active), default=None)
        if floor is None:
            self._served.clear()
        self._served[tenant] = max(self._served.get(tenant, 0.0), floor or 0.0)

    def charge(self, tenant: str, *, inputs: int = 0, outputs: int = 0) -> None:
        self._served[tenant] += INPUT_WEIGHT * inputs + OUTPUT_WEIGHT * outputs

    def least_served(self, tenants: Iterable[str]) -> str:
        """Of those with equal counters the one that comes first."""
        return min(tenants, key=self._served.__getitem__)
