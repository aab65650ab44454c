"""`python -m docs.generate.cli > docs/cli.md`: each command with its arguments and options."""

import sys

import typer
from typer.cli import get_docs_for_click

from loraplex.cli.app import app

_HEAD = "# Commands\n\nGenerated: `python -m docs.generate.cli > docs/cli.md`.\n\n"


def page() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="loraplex")
    text: str = get_docs_for_click(obj=command, ctx=context, name="loraplex", title="`loraplex`")
    return _HEAD + text.replace("# `loraplex`\n\n", "", 1).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
