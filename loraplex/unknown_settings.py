"""All settings' variables; what is wrong with those that are set; and those that look like settings
and are none: misspelt, or of another version."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from loraplex.driver_settings import BY_DRIVER, check
from loraplex.settings import (
    ApiSettings,
    ClientSettings,
    EmbeddedSettings,
    ScalerSettings,
)
from loraplex.worker_settings import WorkerSettings

KINDS: tuple[type[BaseSettings], ...] = (
    *(ApiSettings, EmbeddedSettings, ScalerSettings, WorkerSettings),
    *BY_DRIVER.values(),
)
_ALL: tuple[type[BaseSettings], ...] = (*KINDS, ClientSettings)
# Of the command line and of tests.
_OTHERS = {"LORAPLEX_IMPORT_TOKEN", "LORAPLEX_TOOLS", "LORAPLEX_E2E", "LORAPLEX_BENCH_VLLM"}


def variable(kind: type[BaseSettings], name: str) -> str:
    return f"{kind.model_config['env_prefix']}{name.upper()}"


def unknown(names: Iterable[str]) -> Iterator[str]:
    """What to tell of each, perhaps with what was meant."""
    known = {variable(kind, name) for kind in _ALL for name in kind.model_fields} | _OTHERS
    for name in sorted(names):
        if name.startswith("LORAPLEX_") and name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            yield f"{name} is no setting" + (f"; is {meant[0]} meant?" if meant else "")


def check_all() -> None:
    """Of the processes that `loraplex up` starts, beside its own. Raises ValidationError,
    SettingsError."""
    WorkerSettings()
    check(ScalerSettings().driver)


def told(wrong: ValidationError | SettingsError) -> Iterator[tuple[str, str]]:
    """Of each setting that is wrong: its variable, and what is wrong with what it is set to."""
    if isinstance(wrong, SettingsError):  # one that isn't the JSON that it should be
        field = re.findall(r'field "(\w+)"', str(wrong))[0]
        named = [variable(kind, field) for kind in KINDS if field in kind.model_fields]
        name = next((name for name in named if name in os.environ), named[0])
        yield name, f"{os.environ.get(name)!r}: it is no JSON: {wrong.__cause__}"
        return
    kind = next(kind for kind in _ALL if kind.__name__ == wrong.title)
    for error in wrong.errors():
        first, *rest = map(str, error["loc"])
        where = f"{'.'.join(rest)}: " if rest else ""
        yield variable(kind, first), f"{error['input']!r}: {where}{error['msg']}"


@contextmanager
def checked() -> Iterator[None]:
    """A process whose settings are wrong ends with a line for each."""
    try:
        yield
    except (ValidationError, SettingsError) as wrong:
        sys.exit("\n".join(f"error: {name}={text}" for name, text in told(wrong)))
