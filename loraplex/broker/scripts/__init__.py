"""The Lua scripts by name, one file each; their heads say what they promise.

`allow-oom`: when memory is full nothing new is accepted (`enqueue`); what was is run to its end.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def source(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text()
