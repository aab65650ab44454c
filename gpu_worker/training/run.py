"""PEFT's LoRA trained by transformers' Trainer.

transformers' own, instead of TRL's: supervised tuning needs nothing more, and what is learned from
(`examples.py`) is rendered as it is served. It is stopped by a file (`yield`) or SIGTERM: then it
writes a checkpoint and goes on from there the next time.
"""

import json
import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from gpu_worker.training.config import (
    ADAPTER,
    ADAPTERS,
    CHECKPOINTS,
    METRICS,
    TRAIN,
    VALIDATION,
    YIELD,
    TrainingConfig,
)
from gpu_worker.training.examples import Tokenized, collate, pack

log = logging.getLogger(__name__)

_HEADS = ("lm_head", "embed_out")
_EACH = 100  # steps from the beginning are told one by one, then ever more rarely
_MOST_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}  # of the rows that are computed together


def train(folder: Path, config: TrainingConfig) -> bool:
    """Whether it came to its end; else it stopped where it may go on from."""
    set_seed(config.seed)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    cuda = config.device != "cpu" and torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(config.base_folder)
    training = Tokenized(folder / TRAIN, tokenizer, config.max_length)
    if not len(training):
        raise ValueError("No row has anything to learn from.")
    has_validation = (folder / VALIDATION).exists()
    validation = (
        Tokenized(folder / VALIDATION, tokenizer, config.max_length) if has_validation else None
    )
    reports = Reports(folder, config.checkpoint_s)
    callbacks: list[TrainerCallback] = [reports]
    if config.early_stopping is not None and validation is not None:
        callbacks.append(EarlyStoppingCallback(config.early_stopping))
    if config.checkpoints:
        callbacks.append(Epochs(folder, config.base_model, evaluates=validation is not None))
    together = pack if config.packing else partial(collate, pad=_pad(tokenizer))
    trainer = Trainer(
        model=_model(config, cuda),
        args=_arguments(folder, config, training, evaluates=validation is not None, cuda=cuda),
        train_dataset=training,
        eval_dataset=validation,
        data_collator=together,
        callbacks=callbacks,
    )
    last = latest(folder / CHECKPOINTS)
    log.info("from %s", last or "the beginning")
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if reports.stopped:
        return False
    save(trainer.model, folder / ADAPTER, config.base_model)
    return True


def latest(checkpoints: Path) -> Path | None:
    """The last one that was written to its end: the Trainer writes its state last."""
    states = checkpoints.glob("checkpoint-*/trainer_state.json")
    whole = [state.parent for state in states if _is_json(state)]
    return max(whole, key=lambda f: int(f.name.rpartition("-")[2]), default=None)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True


def save(model: Any, into: Path, base_model: str) -> None:
    """In PEFT's format; the same for the same weights: PEFT writes a set in any order."""
    model.save_pretrained(into)
    file = into / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": base_model}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=2, sort_keys=True))


def _model(config: TrainingConfig, cuda: bool) -> Any:
    dtype = torch.bfloat16 if cuda else torch.float32
    base = AutoModelForCausalLM.from_pretrained(config.base_folder, dtype=dtype)
    base.config.use_cache = False
    if config.parent:
        return PeftModel.from_pretrained(base, config.parent, is_trainable=True)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    found = get_peft_model(base, lora)
    for name, _ in found.named_modules():
        if name.endswith(tuple(f".{head}.lora_A" for head in _HEADS)):
            raise ValueError("target_modules: the output layer can't be adapted here.")
    return found


def _arguments(
    folder: Path, config: TrainingConfig, data: Tokenized, *, evaluates: bool, cuda: bool
) -> TrainingArguments:
    at_once = _rows_at_once(config, data, cuda)
    total = config.max_steps or math.ceil(len(data) / config.batch_size) * config.epochs
    return TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        per_device_train_batch_size=at_once,
        per_device_eval_batch_size=at_once,
        gradient_accumulation_steps=max(1, config.batch_size // at_once),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup_ratio * total),
        logging_steps=1,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="epoch" if config.early_stopping and evaluates else "no",  # else by time
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,  # early stopping's patience
        load_best_model_at_end=bool(config.early_stopping and evaluates),
        metric_for_best_model="eval_loss" if evaluates else None,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=not cuda,
        bf16=cuda,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        include_num_input_tokens_seen="non_padding",
    )


def _rows_at_once(config: TrainingConfig, data: Tokenized, cuda: bool) -> int:
    """A divisor of the batch, so that a step's rows fit into memory."""
    if config.gradient_accumulation_steps:
        return config.batch_size // config.gradient_accumulation_steps
    longest = max(len(each.ids) for each in data.examples)
    fit = max(1, _MOST_TOKENS_AT_ONCE["cuda" if cuda else "cpu"] // longest)
    return max(
        n for n in range(1, config.batch_size + 1) if config.batch_size % n == 0 and n <= fit
    )


def _pad(tokenizer: Any) -> int:
    found = tokenizer.pad_token_id
    return int(found if found is not None else tokenizer.eos_token_id)


class Reports(TrainerCallback):
    """Tells how far it is, keeps checkpoints by the clock, stops when it is asked to."""

    def __init__(self, folder: Path, checkpoint_s: float) -> None:
        self._folder = folder
        self._checkpoint_s = checkpoint_s
        self._begun = 0  # the step
        self._kept_at = self._begun_at = self._told_at = time.monotonic()
        self.stopped = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._begun_at, self._begun = time.monotonic(), state.global_step
        tell(self._folder, {"begun": state.global_step, "total_steps": state.max_steps})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        names = ("loss", "eval_loss", "learning_rate", "grad_norm")
        figures = {name: float(logs[name]) for name in names if name in (logs or {})}
        found = {name: value for name, value in figures.items() if math.isfinite(value)}
        if "loss" in figures and "loss" not in found:
            raise FloatingPointError("The loss is no number any more: lower the learning rate.")
        if found and ("eval_loss" in found or self._is_due(state.global_step, state.max_steps)):
            tokens = int(state.num_input_tokens_seen)
            at = {"step": state.global_step, "epoch": state.epoch, "tokens": tokens}
            ahead = {"total_steps": state.max_steps, "left_s": self._left_s(state)}
            tell(self._folder, at | ahead | found)

    def _left_s(self, state: Any) -> float:
        """As fast as it has been since it was begun, or resumed."""
        done = max(1, state.global_step - self._begun)
        took_s = time.monotonic() - self._begun_at
        return round(took_s / done * (state.max_steps - state.global_step), 1)

    def _is_due(self, step: int, last: int) -> bool:
        """Some thousand reports at most, however long it takes."""
        now = time.monotonic()
        pause_s = max(1.0, (now - self._begun_at) / 1000)
        due = step <= _EACH or step == last or now - self._told_at >= pause_s
        if due:
            self._told_at = now
        return due

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not _is_whole(state.epoch):
            self._keep(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint of an epoch's last step would come before what the epoch's end brings
        (evaluation, patience), which wouldn't come again: it is written after that."""
        if self.stopped:  # in the middle of it
            control.should_evaluate = control.should_save = False
        else:
            self._keep(state, control)

    def _keep(self, state: Any, control: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        if (self._folder / YIELD).exists():
            control.should_training_stop = control.should_save = self.stopped = True
        elif time.monotonic() - self._kept_at > self._checkpoint_s:
            self._kept_at = time.monotonic()
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        tell(self._folder, {"checkpoint": state.global_step})


def _is_whole(epoch: float) -> bool:
    return abs(epoch - round(epoch)) < 1e-6


class Epochs(TrainerCallback):
    """Keeps what was learned by each epoch's end but the last, when it was evaluated."""

    def __init__(self, folder: Path, base_model: str, *, evaluates: bool) -> None:
        self._folder = folder
        self._base_model = base_model
        self._evaluates = evaluates

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        if not self._evaluates:
            self._keep(state, model, {})

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any, metrics: Any, **_: Any
    ) -> None:
        self._keep(state, model, {"validation_loss": float(metrics["eval_loss"])})

    def _keep(self, state: Any, model: Any, figures: dict[str, float]) -> None:
        if state.global_step >= state.max_steps or not _is_whole(state.epoch):
            return
        losses = [each["loss"] for each in state.log_history if "loss" in each]
        found = figures | ({"loss": float(losses[-1])} if losses else {})
        save(model, self._folder / ADAPTERS / str(state.global_step), self._base_model)
        epoch = {"kept": state.global_step, "epoch": state.epoch}
        tell(self._folder, epoch | {k: v for k, v in found.items() if math.isfinite(v)})


def tell(folder: Path, facts: dict[str, Any]) -> None:
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps(facts | {"at": time.time()}) + "\n")
