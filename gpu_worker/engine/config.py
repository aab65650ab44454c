"""How an engine is set up."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineConfig:
    device: str = "auto"
    dtype: str = "auto"
    max_running: int = 32  # sequences in one batch
    max_step_tokens: int = 512
    kv_cache_gib: float | None = None  # 1 on a CPU; on a GPU what is free
    max_adapters: int = 64  # slots; on a GPU one of rank 64 takes four
    adapter_cache_gib: float = 2.0  # packed adapters in memory
    prefix_cache: bool = True
    # The same tokens whatever else is in the batch and however a prompt was split or resumed.
    # Prompts cost more; see docs/engine.md.
    deterministic: bool = False
    overlap: bool | None = None  # steps; None: where there is a GPU
    findings: Path | None = None  # folder; a model that was probed is not probed again

    def __post_init__(self) -> None:
        for name in ("max_running", "max_step_tokens", "max_adapters"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be an integer of 1 or more")
        for name in ("kv_cache_gib", "adapter_cache_gib"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"{name} must be a number over 0")
