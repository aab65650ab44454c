"""All settings' variables; and those that look like settings and are none: misspelt, or of another
version."""

import difflib
from collections.abc import Iterable, Iterator

from pydantic_settings import BaseSettings

from loraplex.docker_settings import DockerSettings
from loraplex.ec2_settings import Ec2Settings
from loraplex.kubernetes_settings import KubernetesSettings
from loraplex.settings import (
    ApiSettings,
    ClientSettings,
    EmbeddedSettings,
    ScalerSettings,
    WorkerSettings,
)

KINDS = (
    *(ApiSettings, EmbeddedSettings, ScalerSettings, WorkerSettings),
    *(DockerSettings, Ec2Settings, KubernetesSettings),
)
# Of the command line and of tests.
_OTHERS = {"LORAPLEX_IMPORT_TOKEN", "LORAPLEX_TOOLS", "LORAPLEX_E2E", "LORAPLEX_BENCH_VLLM"}


def variable(kind: type[BaseSettings], name: str) -> str:
    return f"{kind.model_config['env_prefix']}{name.upper()}"


def unknown(names: Iterable[str]) -> Iterator[str]:
    """What to tell of each, perhaps with what was meant."""
    kinds = (*KINDS, ClientSettings)
    known = {variable(kind, name) for kind in kinds for name in kind.model_fields} | _OTHERS
    for name in sorted(names):
        if name.startswith("LORAPLEX_") and name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            yield f"{name} is no setting" + (f"; is {meant[0]} meant?" if meant else "")
