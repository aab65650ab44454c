"""`python -m docs.generate.settings > docs/settings.md`: each setting of each process."""

import sys

from loraplex.settings import Settings
from loraplex.unknown_settings import KINDS, variable


def page() -> str:
    """All settings as a Markdown table, by process."""
    lines = [
        "# Settings",
        "",
        "Generated: `python -m docs.generate.settings > docs/settings.md`.",
        "",
    ]
    inherited: set[str] = set()
    for kind in (Settings, *KINDS):
        lines += [f"## {kind.__name__}", "", f"{kind.__doc__}", ""]
        lines += ["| variable | default | meaning |", "|---|---|---|"]
        for name, field in kind.model_fields.items():
            if variable(kind, name) in inherited:
                continue
            default = "number of cores" if field.default_factory else f"`{field.default!s}`"
            lines.append(f"| `{variable(kind, name)}` | {default} | {field.description} |")
        lines.append("")
        inherited |= {variable(kind, name) for name in kind.model_fields}
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
