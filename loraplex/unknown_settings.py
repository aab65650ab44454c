"""Variables that look like settings and are none: misspelt, or of another version."""

import difflib
from collections.abc import Iterable, Iterator

from loraplex.ec2_settings import Ec2Settings
from loraplex.settings import (
    ApiSettings,
    ClientSettings,
    EmbeddedSettings,
    ScalerSettings,
    WorkerSettings,
)

_PREFIX = "LORAPLEX_"
_KINDS = (
    *(ApiSettings, EmbeddedSettings, ScalerSettings, WorkerSettings, ClientSettings),
    Ec2Settings,
)
# Of the command line and of tests.
_OTHERS = {"LORAPLEX_IMPORT_TOKEN", "LORAPLEX_BROWSER", "LORAPLEX_BENCH_VLLM"}


def unknown(names: Iterable[str]) -> Iterator[str]:
    """What to tell of each, perhaps with what was meant."""
    known = {
        f"{kind.model_config['env_prefix']}{name.upper()}"
        for kind in _KINDS
        for name in kind.model_fields
    } | _OTHERS
    for name in sorted(names):
        if name.startswith(_PREFIX) and name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            yield f"{name} is no setting" + (f"; is {meant[0]} meant?" if meant else "")
