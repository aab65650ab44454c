"""What a training is made of: `config.json` in its folder, and the names of what it writes there.

`train.jsonl`, `validation.jsonl` (perhaps): rows as `examples.py` has them. `metrics.jsonl`: a line
for each report. `checkpoints/`: the Trainer's. `adapter/`: the end, in PEFT's format, and
`adapters/STEP/` what was learned by the end of an epoch before it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

CONFIG, TRAIN, VALIDATION = "config.json", "train.jsonl", "validation.jsonl"
METRICS, CHECKPOINTS, YIELD = "metrics.jsonl", "checkpoints", "yield"
ADAPTER, ADAPTERS = "adapter", "adapters"
FAILED, YIELDED = 1, 75  # exit statuses; the latter: it goes on another time


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """`max_steps` wins over `epochs`. `target_modules` empty: all linear layers but the head.
    `parent`: the folder of an adapter that it goes on from, with its rank, alpha and modules.
    `packing`: rows that are computed together lie in one, without padding; each sees itself only.
    `checkpoint_s`: what is lost at most when the process dies."""

    base_model: str  # as it is named in the adapter's config
    base_folder: str
    parent: str = ""
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8  # rows that a step learns from
    gradient_accumulation_steps: int | None = None  # parts of them, one by one; None: as they fit
    packing: bool = False
    learning_rate: float = 2e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = 0.03
    max_length: int = 1024  # tokens of a row; longer ones are cut
    early_stopping: int | None = None  # evaluations without a gain
    checkpoints: int = 0  # of epochs that are kept as adapters; 0: the end alone
    checkpoint_s: float = 120.0
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None

    def write(self, folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(asdict(self)))


def read(folder: Path) -> TrainingConfig:
    given = json.loads((folder / CONFIG).read_text())
    return TrainingConfig(**given | {"target_modules": tuple(given["target_modules"])})
