"""Train one of the two small example LoRA adapters for SmolLM2-135M-Instruct on a CPU.

Usage (about three minutes on two cores):

    python examples/adapters/train.py pirate --base PATH_OR_HUB_ID --out examples/adapters/pirate
    python examples/adapters/train.py json   --base PATH_OR_HUB_ID --out examples/adapters/json

`pirate` answers like a pirate; `json` answers with one JSON object that has the keys
"answer" and "topic". They differ in rank, alpha and target modules on purpose, so that serving
both at once exercises batches of mixed ranks.

Everything random is seeded and the thread count is fixed, so a second run on the same machine
with the same library versions writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

BASE_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
DATA_DIR = Path(__file__).resolve().parent / "data"
IGNORED = -100  # label of a token that has no part in the loss
SEED = 0
THREADS = 2

AdapterName = Literal["pirate", "json"]


@dataclass(frozen=True)
class Recipe:
    """What differs between the two adapters."""

    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    learning_rate: float
    epochs: int
    batch_size: int = 6


RECIPES: dict[AdapterName, Recipe] = {
    "pirate": Recipe(
        rank=8, alpha=16, target_modules=("q_proj", "v_proj"), learning_rate=2e-3, epochs=8
    ),
    "json": Recipe(
        rank=4,
        alpha=12,
        target_modules=("q_proj", "k_proj", "v_proj", "o_proj"),
        learning_rate=1.5e-3,
        epochs=8,
    ),
}


@dataclass(frozen=True)
class Example:
    """One chat as token ids; the first `prompt_length` of them have no part in the loss."""

    ids: list[int]
    prompt_length: int


def load_examples(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Render each chat with the model's chat template, exactly as it is done for serving."""
    examples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        *context, answer = json.loads(line)["messages"]
        prompt = tokenizer.apply_chat_template(context, tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer_ids = tokenizer(answer["content"], add_special_tokens=False)["input_ids"]
        # <|im_end|> is the eos token: the adapter has to learn when to stop, too.
        ids = [*prompt_ids, *answer_ids, tokenizer.eos_token_id]
        examples.append(Example(ids, len(prompt_ids)))
    return examples


def collate(batch: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad a batch on the right and mask padding and prompts out of the labels."""
    width = max(len(example.ids) for example in batch)
    input_ids = torch.full((len(batch), width), pad_id)
    attention_mask = torch.zeros((len(batch), width), dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED)
    for row, example in enumerate(batch):
        length = len(example.ids)
        input_ids[row, :length] = torch.tensor(example.ids)
        attention_mask[row, :length] = 1
        labels[row, example.prompt_length : length] = input_ids[row, example.prompt_length : length]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def train(model: PeftModel, examples: list[Example], recipe: Recipe, pad_id: int) -> None:
    """AdamW with a short warm-up, then a linear decay to zero."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    steps_per_epoch = -(-len(examples) // recipe.batch_size)
    total = steps_per_epoch * recipe.epochs
    warmup = max(1, total // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (total - step) / (total - warmup))
    )
    order = list(range(len(examples)))
    shuffle = random.Random(SEED).shuffle
    started = time.perf_counter()

    model.train()
    for epoch in range(1, recipe.epochs + 1):
        shuffle(order)
        losses = []
        for start in range(0, len(order), recipe.batch_size):
            chosen = [examples[i] for i in order[start : start + recipe.batch_size]]
            loss = model(**collate(chosen, pad_id)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
        mean = sum(losses) / len(losses)
        seconds = time.perf_counter() - started
        print(f"epoch {epoch}/{recipe.epochs}  loss {mean:.3f}  {seconds:.0f} s", flush=True)


def save(model: PeftModel, out: Path) -> None:
    """Write the two files of a standard PEFT adapter, with the weights in bfloat16.

    `PeftModel.save_pretrained` would do, but it adds a README and keeps the training dtype.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    tensors = {name: state[name].to(torch.bfloat16).contiguous() for name in sorted(state)}
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})

    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = BASE_MODEL_ID
    config["inference_mode"] = True
    config["target_modules"] = sorted(config["target_modules"])
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (out / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line, train, save."""
    parser = argparse.ArgumentParser(description="Train an example LoRA adapter on the CPU.")
    parser.add_argument("adapter", choices=sorted(RECIPES))
    parser.add_argument("--base", default=BASE_MODEL_ID, help="base model: folder or Hub id")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapter")
    args = parser.parse_args()
    recipe = RECIPES[args.adapter]

    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    tokenizer = AutoTokenizer.from_pretrained(args.base)
    # The base runs in float32: on most CPUs this is faster to train than bfloat16, and safer.
    base = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    model = get_peft_model(
        base,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=0.0,
            target_modules=list(recipe.target_modules),
        ),
    )
    examples = load_examples(DATA_DIR / f"{args.adapter}.jsonl", tokenizer)
    print(f"{args.adapter}: {len(examples)} chats, {sum(len(e.ids) for e in examples)} tokens")
    train(model, examples, recipe, pad_id=tokenizer.pad_token_id)
    save(model, args.out)
    size = (args.out / "adapter_model.safetensors").stat().st_size
    print(f"wrote {args.out} ({size} bytes of weights)")


if __name__ == "__main__":
    main()
