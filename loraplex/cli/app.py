"""`loraplex`: the commands."""

import sys

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from loraplex.cli import (
    adapters,
    aliases,
    bench,
    captures,
    chat,
    datasets,
    dead_letters,
    deployments,
    describe,
    doctor,
    evaluate,
    finetune,
    keys,
    logs,
    models,
    sharing,
    tenants,
    top,
    up,
    usage,
    webhooks,
)
from loraplex.cli.client import fail

app = typer.Typer(
    name="loraplex",
    help="Serverless LoRA serving: one base model, hundreds of adapters, no idle GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    up,
    deployments,
    describe,
    top,
    adapters,
    models,
    aliases,
    datasets,
    captures,
    finetune,
    evaluate,
    chat,
    bench,
    logs,
    doctor,
    dead_letters,
    keys,
    sharing,
    tenants,
    usage,
    webhooks,
):
    module.register(app)


def main() -> None:
    try:
        app()
    except (ValidationError, SettingsError) as wrong:
        from loraplex.unknown_settings import told

        for name, text in told(wrong):
            fail(f"{name}={text}")
        sys.exit(2)
    except OSError as failed:  # a home that can't be made or written, mostly
        sys.exit(fail(str(failed)).exit_code)


if __name__ == "__main__":
    main()
