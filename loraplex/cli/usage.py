"""usage: what was used, and what it cost."""

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from loraplex.cli.client import client, fail, print_json, print_table
from loraplex.cli.deployments import Json
from loraplex.cli.keys import seconds
from loraplex.dimensions import Dimension


class Bucket(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


def register(app: typer.Typer) -> None:
    app.command()(usage)


def usage(
    by: Annotated[
        list[Dimension] | None, typer.Option(help="Once for each; deployment if not given.")
    ] = None,
    since: Annotated[
        str, typer.Option(help="7d, 12h, 30m ago, or a time such as 2026-11-01.")
    ] = "30d",
    until: Annotated[str | None, typer.Option(help="The same; now if not given.")] = None,
    bucket: Annotated[Bucket | None, typer.Option(help="One line for each (UTC).")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Another, or '*' for all; for those who run the platform.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    as_json: Json = False,
) -> None:
    """Requests, tokens, waits, replica time and cost. What has ended is here within seconds."""
    by = by or [Dimension.DEPLOYMENT]
    query: dict[str, Any] = {"by": [each.value for each in by], "since": _time(since)}
    query |= {"until": _time(until)} if until else {}
    query |= {"bucket": bucket.value} if bucket else {}
    query |= {"of": tenant} if tenant else {}
    if as_csv:
        sys.stdout.write(
            client().content("/api/v1/usage", params=query | {"format": "csv"}).decode()
        )
        return
    found = client().call("GET", "/api/v1/usage", params=query)
    if as_json:
        print_json(found)
        return
    print_table(_table(found["data"], by, bucketed=bucket is not None))


def _table(rows: list[dict[str, Any]], by: list[Dimension], *, bucketed: bool) -> Table:
    table = Table()
    for name in (*(["from"] if bucketed else []), *(each.value for each in by)):
        table.add_column(name, no_wrap=True)
    for name in ("requests", "failed", "tokens in", "out", "queued", "TTFT", "replicas", "cost"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = ("requests", "failed", "prompt_tokens", "completion_tokens")
        waits = (row["mean_queue_s"], row["mean_first_token_s"])
        table.add_row(
            *([row["start"][:16].replace("T", " ")] if bucketed else []),
            *(row[each.value] or "(base)" for each in by),
            *(f"{row[name]:,}" for name in counts),
            *("" if wait is None else f"{wait:.2f}s" for wait in waits),
            f"{row['replica_s'] / 3600:.2f}h",
            f"{row['cost']:.4f}",
        )
    return table


def _time(text: str) -> str:
    if text[-1:] in "smhd":
        return (datetime.now(UTC) - timedelta(seconds=seconds(text))).isoformat()
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        raise fail(
            f"{text!r} is neither an age such as 7d nor a time such as 2026-11-01."
        ) from None
