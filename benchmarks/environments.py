"""Virtual environments of programs whose pins clash with ours, made once and kept."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

_KEPT = Path(__file__).parent.parent / ".loraplex" / "clients"


def python_with(*requirements: str) -> Path:
    """The Python of an environment in which these are installed."""
    name = hashlib.sha256(repr((requirements, sys.version)).encode()).hexdigest()[:12]
    folder = _KEPT / name
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        venv.create(folder, clear=True, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        subprocess.run(install, check=True, timeout=600)
        done.touch()
    return python


def run(python: Path, script: Path, environment: dict[str, str]) -> str:
    """What a script prints. Its failure is the test's."""
    found = subprocess.run(
        [str(python), str(script)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout
