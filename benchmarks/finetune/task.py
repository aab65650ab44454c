"""A task that the base model can't do: orders → JSON, in a vocabulary that only the rows know.

Codes of colours and sizes are made up; half of the combinations are never seen in training.
"""

import json
import random
from typing import Any

_COLOURS = ("crimson", "amber", "teal", "ivory", "violet", "olive", "coral", "slate")
_SIZES = ("tiny", "small", "medium", "large", "huge")
_THINGS = ("lamp", "chair", "mug", "rug", "clock", "vase", "shelf", "basket")
_NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_SAYINGS = (
    "{name} wants {count} {size} {colour} {thing}s.",
    "Please send {count} {thing}s, {colour} and {size}, to {name}.",
    "For {name}: {count} x {thing}, {size}, {colour}.",
)


def rows(
    count: int, held_out: int, seed: int = 0
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Chats to learn from, and others to be judged by."""
    draw = random.Random(seed)
    codes = {c: f"{c[0].upper()}{draw.randint(10, 99)}" for c in _COLOURS}
    grades = {s: f"g{draw.randint(1, 9)}{s[-1]}" for s in _SIZES}
    seen: set[str] = set()
    found: list[dict[str, Any]] = []
    while len(found) < count + held_out:
        facts = {
            "name": draw.choice(_NAMES),
            "count": draw.randint(2, 19),
            "size": draw.choice(_SIZES),
            "colour": draw.choice(_COLOURS),
            "thing": draw.choice(_THINGS),
        }
        said = draw.choice(_SAYINGS).format(**facts)
        if said in seen:
            continue
        seen.add(said)
        wanted = {
            "who": facts["name"],
            "item": facts["thing"],
            "n": facts["count"],
            "code": f"{codes[str(facts['colour'])]}-{grades[str(facts['size'])]}",
        }
        asked = {"role": "user", "content": said}
        found.append({"messages": [asked, {"role": "assistant", "content": json.dumps(wanted)}]})
    return found[:count], found[count:]
