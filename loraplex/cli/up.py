"""up, down, status. What they do loads the database's libraries, half a second: only then."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is up.")] = False,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Start with no deployment.")] = False,
) -> None:
    """Start the whole platform on this machine, with a demo deployment and two adapters."""
    from loraplex.cli import platform_here

    platform_here.up(detach=detach, no_demo=no_demo)


def down() -> None:
    """Stop everything that `up` started; returns when no process is left."""
    from loraplex.cli import platform_here

    platform_here.down()


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Processes and deployments. Exit code 3 when the platform is down."""
    from loraplex.cli import platform_here

    platform_here.status(as_json=as_json)
