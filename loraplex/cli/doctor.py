"""doctor: what is wrong here, and what to do."""

from typing import Annotated

import typer
from rich.text import Text

from loraplex.cli.client import out, print_json

_MARKS = {"OK": ("ok  ", "green"), "WARN": ("warn", "yellow"), "BAD": ("bad ", "red")}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Look for what is wrong: ports, disk, Redis, database, clocks, models, GPU, versions."""
    # Here, so that other commands don't load the database's libraries: half a second.
    from loraplex.doctor import Level, examine

    worst = Level.OK
    findings = []
    for finding in examine():
        findings.append(finding)
        worst = max(worst, finding.level)
        if not as_json:
            mark, style = _MARKS[finding.level.name]
            out.print(Text.assemble((mark, style), f"  {finding.subject:<10} {finding.text}"))
            if finding.remedy:
                out.print(f"                  → {finding.remedy}")
    if as_json:
        print_json(
            [
                {
                    "level": each.level.name.lower(),
                    "subject": each.subject,
                    "text": each.text,
                    "remedy": each.remedy,
                }
                for each in findings
            ]
        )
    raise typer.Exit(1 if worst is Level.BAD else 0)
