"""Programs of the machine that some tests need."""

import os
import shutil

import pytest


def need(*names: str, package: str) -> str:
    """The first one's path. Without any of them the test is skipped; where the tools must be there
    (LORAPLEX_TOOLS=required, as in CI) it fails."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        lacks(f"{names[0]} (Debian's package {package})")
    return found or ""


def lacks(what: str) -> None:
    text = f"this test needs {what}"
    if os.environ.get("LORAPLEX_TOOLS") == "required":
        pytest.fail(text)
    pytest.skip(text)
