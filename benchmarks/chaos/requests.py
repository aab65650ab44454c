"""What is asked: chats over the base model and two adapters, greedy and seeded, of all lengths."""

import random
from dataclasses import dataclass
from typing import Any

MODELS = ("chat", "pirate/1", "json/1")
TOPICS = (
    *("the moon", "three rivers", "a lighthouse", "bread", "the number seven", "rain", "a ship"),
    *("winter", "an old clock", "the sea", "a market", "chess", "a garden", "salt", "thunder"),
)
ASKED = ("Tell me about {}.", "Write a line on {}.", "What is {}?", "List facts about {}.")


@dataclass(frozen=True, slots=True)
class Answer:
    """One undisturbed answer."""

    text: str
    tokens: int  # of all the request's answers, as `usage` counts them


def make(random_: random.Random, count: int) -> list[dict[str, Any]]:
    """`count` request bodies."""
    return [_body(random_, index) for index in range(count)]


def _body(random_: random.Random, index: int) -> dict[str, Any]:
    question = random_.choice(ASKED).format(random_.choice(TOPICS))
    body: dict[str, Any] = {
        "model": MODELS[index % len(MODELS)],
        "messages": [{"role": "user", "content": f"{question} ({index})"}],
        "max_tokens": random_.choice((8, 16, 32, 48, 64)),
    }
    if random_.random() < 0.5:
        body |= {"temperature": 0}
    else:
        body |= {"temperature": 0.9, "top_p": 0.95, "seed": random_.randrange(2**31)}
    if random_.random() < 0.5:
        body["ignore_eos"] = True
    if random_.random() < 0.1:
        body["n"] = 2
    return body
