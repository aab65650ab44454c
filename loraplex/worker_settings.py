"""What a replica needs to know."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from loraplex.settings import Settings


class WorkerSettings(Settings):
    """One replica."""

    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: bfloat16 where the hardware multiplies it (on a CPU not if "
        "deterministic), else float32 arithmetic on what the checkpoint stores.",
    )
    max_running: int = Field(32, ge=1, description="Requests in one batch.")
    max_step_tokens: int = Field(
        512, ge=16, description="Token budget of one engine step (decode and prefill together)."
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="Memory for the KV cache, in GiB. Unset: 1 on a CPU, on a GPU what is free.",
    )
    max_adapters: int = Field(
        64,
        ge=1,
        description="Adapters that can run at once (slots). On a GPU a slot holds rank 16.",
    )
    preload: dict[str, str] = Field(
        {}, description="Adapters to load at once and to keep, by name, their digests; as JSON."
    )
    adapter_cache_gib: float = Field(
        2.0, gt=0, description="Memory for adapters that are ready for a slot, in GiB."
    )
    model_disk: Path | None = Field(
        None,
        description="With `LORAPLEX_MODEL_STORE`: a folder of this machine for copies of base "
        "models, which its replicas share; `LORAPLEX_MODELS_GIB` bounds it. Unset: models are in "
        "the home folder, copies below it (`model-copies`) where it hasn't one.",
    )

    @field_validator("model_disk", "adapter_disk")
    @classmethod
    def _is_folder(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_absolute():
            raise ValueError("a folder of this machine, such as /mnt/nvme/models")
        return folder

    adapter_disk: Path | None = Field(
        None,
        description="Folder for local copies of adapters, for where the home folder lies on a "
        "network. Unset: they are read from the home folder.",
    )
    adapter_disk_gib: float = Field(
        20.0, gt=0, description="Quota of that folder, in GiB; the least recently used ones go."
    )
    deterministic: bool = Field(
        False, description="The same tokens whatever else is in the batch; slower prompts."
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="CPU threads of a replica."
    )
    lease_s: float = Field(
        5.0, ge=1, description="A replica that is silent for this long loses its jobs."
    )
    max_deliveries: int = Field(
        5, ge=1, description="A job that was on this many dying replicas is answered with an error."
    )
