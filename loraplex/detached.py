"""Start a process that outlives its terminal: a session of its own, its output in a log."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def start(command: Sequence[str], log: Path, **options: Any) -> "subprocess.Popen[bytes]":
    """Ctrl-C doesn't reach it: whoever starts it ends it. `options` are Popen's."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            **options,
        )
