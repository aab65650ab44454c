"""The operator's own word on what is kept of what users say: `LORAPLEX_REDACT=package:function`.

It is given each exchange before it is stored, `{"asked": {"messages": …} or {"prompt": …},
"answer": …, "shadows": {version: answer}, "adapter": …, "deployment": …}`, and returns it, changed
or not; None: it is not kept. What it raises on is not kept either.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

Redact = Callable[[dict[str, Any]], dict[str, Any] | None]


def load(named: str) -> Redact:
    """`package.module:function`; empty: everything is kept as it is. Raises ValueError."""
    if not named:
        return lambda exchange: exchange
    module, _, name = named.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as missing:
        raise ValueError(f"{named!r}: {missing}") from missing
    if not callable(found):
        raise ValueError(f"{named!r} is no function")
    redact: Redact = found
    return redact
