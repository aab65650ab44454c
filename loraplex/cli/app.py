"""`loraplex`: the commands."""

import typer

from loraplex.cli import adapters, chat, deployments, logs, up

app = typer.Typer(
    name="loraplex",
    help="Serverless LoRA serving: one base model, hundreds of adapters, no idle GPUs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (up, deployments, adapters, chat, logs):
    module.register(app)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
