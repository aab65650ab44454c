"""`python -m docs.generate.settings > docs/settings.md`: each setting of each process."""

import sys

from loraplex.ec2_settings import Ec2Settings
from loraplex.settings import (
    ApiSettings,
    EmbeddedSettings,
    ScalerSettings,
    Settings,
    WorkerSettings,
)


def page() -> str:
    """All settings as a Markdown table, by process."""
    lines = [
        "# Settings",
        "",
        "Generated: `python -m docs.generate.settings > docs/settings.md`.",
        "",
    ]
    inherited: set[str] = set()
    for kind in (
        *(Settings, ApiSettings, EmbeddedSettings, ScalerSettings, WorkerSettings),
        Ec2Settings,
    ):
        lines += [f"## {kind.__name__}", "", f"{kind.__doc__}", ""]
        lines += ["| variable | default | meaning |", "|---|---|---|"]
        for name, field in kind.model_fields.items():
            if name in inherited and kind is not Settings:
                continue
            default = "number of cores" if field.default_factory else f"`{field.default!s}`"
            prefix = kind.model_config["env_prefix"]
            lines.append(f"| `{prefix}{name.upper()}` | {default} | {field.description} |")
        lines.append("")
        inherited |= set(kind.model_fields)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
