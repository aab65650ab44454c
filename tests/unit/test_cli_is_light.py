"""A command answers at once: it loads no library that it doesn't need."""

import subprocess
import sys

HEAVY = {"sqlalchemy", "alembic", "redis", "torch", "transformers", "fastapi", "celery", "numpy"}


def test_commands_load_no_heavy_libraries() -> None:
    code = "import sys, loraplex.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(loaded.stdout.split())
