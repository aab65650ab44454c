"""The peer: PEFT and transformers' Trainer as their documentation has it, on the same rows.

`python -m benchmarks.finetune.bare FOLDER`: of a folder as `gpu_worker.training` reads it. Prints
seconds in the loop and tokens that were learned from.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

from gpu_worker.training.config import read

IGNORED = -100


def main(folder: Path) -> None:
    config = read(folder)
    set_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(config.base_folder)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(config.target_modules) or "all-linear",
        task_type="CAUSAL_LM",
    )
    base = AutoModelForCausalLM.from_pretrained(config.base_folder, dtype=torch.float32)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    examples = [_example(row["messages"], tokenizer) for row in rows]
    trainer = Trainer(
        model=get_peft_model(base, lora),
        args=TrainingArguments(
            output_dir=str(folder / "bare"),
            per_device_train_batch_size=config.batch_size,
            max_steps=config.max_steps or -1,
            learning_rate=config.learning_rate,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            seed=config.seed,
        ),
        train_dataset=examples,
        data_collator=lambda batch: _collate(batch, tokenizer.pad_token_id),
    )
    result = trainer.train()
    print(json.dumps({"seconds": result.metrics["train_runtime"]}))


def _example(messages: list[dict[str, str]], tokenizer: object) -> dict[str, list[int]]:
    prompt = tokenizer.apply_chat_template(  # type: ignore[attr-defined]
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=False)  # type: ignore[attr-defined]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    asked = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
    return {"input_ids": ids, "labels": [IGNORED] * asked + ids[asked:]}


def _collate(batch: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    width = max(len(each["input_ids"]) for each in batch)
    fill = {"input_ids": pad, "labels": IGNORED, "attention_mask": 0}
    rows = [{**each, "attention_mask": [1] * len(each["input_ids"])} for each in batch]
    return {
        name: torch.tensor([r[name] + [value] * (width - len(r[name])) for r in rows])
        for name, value in fill.items()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
