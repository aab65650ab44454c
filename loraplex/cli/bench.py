"""bench: load on a deployment, and what its streams felt."""

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx
import typer
from rich.progress import Progress
from rich.table import Table

from loraplex.cli.client import client, error_text, fail, out, print_json, print_table

_WORDS = ("the", "sea", "was", "calm", "and", "old", "men", "told", "of", "ships", "that", "left")
_SHOWN = (0.5, 0.95, 0.99)


@dataclass
class Stream:
    """Instants of one answer, monotonic seconds."""

    variant: str
    asked: float
    tokens: list[float] = field(default_factory=list)
    output: int = 0
    error: str = ""


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    deployment: str,
    mix: Annotated[
        list[str] | None,
        typer.Option("--mix", "-m", help="base or an adapter, with a weight: pirate/1=3. Again."),
    ] = None,
    streams: Annotated[int, typer.Option("--streams", "-c", min=1, help="At once.")] = 8,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, help="In all.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of each answer, all of them.")] = 64,
    prompt_words: Annotated[int, typer.Option(min=1)] = 64,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests a second; else as fast as it goes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Send requests with a mix of adapters; tell times to first token and between tokens."""
    variants = [name for each in mix or ["base"] for name in _weighted(each)]
    api = client()
    bodies = [
        {
            "model": deployment if variant == "base" else f"{deployment}:{variant}",
            "prompt": _prompt(number, prompt_words),
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for number, variant in zip(range(requests), itertools.cycle(variants), strict=False)
    ]
    names = [name for name, _ in zip(itertools.cycle(variants), bodies, strict=False)]
    began = time.monotonic()
    found = asyncio.run(_load(api.http, bodies, names, streams, rate, quiet=as_json))
    result = summary(found, time.monotonic() - began)
    if as_json:
        print_json(result)
    if result["failed"] == len(found):
        raise fail(f"All requests failed: {found[0].error}")
    if not as_json:
        _print(result)


def _weighted(text: str) -> list[str]:
    name, _, weight = text.partition("=")
    if weight and not (weight.isdecimal() and 0 < int(weight) <= 1000):
        raise fail(f"--mix {text}: a weight is a whole number from 1 to 1000.", code=2)
    return [name] * int(weight or 1)


def _prompt(number: int, words: int) -> str:
    """Different from its first word on: the prefix cache doesn't help."""
    return f"{number} " + " ".join(itertools.islice(itertools.cycle(_WORDS), words))


async def _load(
    http: httpx.Client,
    bodies: list[dict[str, Any]],
    names: list[str],
    streams: int,
    rate: float | None,
    *,
    quiet: bool,
) -> list[Stream]:
    room = asyncio.Semaphore(streams)
    limits = httpx.Limits(max_connections=streams)
    timeout = httpx.Timeout(30, read=900)
    async with httpx.AsyncClient(
        base_url=http.base_url, headers=http.headers, limits=limits, timeout=timeout
    ) as api:
        with Progress(disable=quiet or not out.is_terminal, transient=True) as progress:
            bar = progress.add_task("requests", total=len(bodies))
            began = time.monotonic()

            async def one(number: int) -> Stream:
                asked = None
                if rate is not None:  # what waits here for room was late, too
                    asked = began + number / rate
                    await asyncio.sleep(max(0.0, asked - time.monotonic()))
                async with room:
                    stream = await _ask(api, bodies[number], names[number], asked)
                progress.advance(bar)
                return stream

            return await asyncio.gather(*(one(number) for number in range(len(bodies))))


async def _ask(
    api: httpx.AsyncClient, body: dict[str, Any], variant: str, asked: float | None
) -> Stream:
    stream = Stream(variant, time.monotonic() if asked is None else asked)
    try:
        async with api.stream("POST", "/v1/completions", json=body) as response:
            if response.is_error:
                await response.aread()
                stream.error = error_text(response)
                return stream
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    stream.error = event["error"]["message"]
                elif event.get("usage"):
                    stream.output = event["usage"]["completion_tokens"]
                if event.get("choices"):
                    stream.tokens.append(time.monotonic())
    except httpx.TransportError as broken:
        stream.error = f"{type(broken).__name__}: {broken}"
    return stream


def summary(streams: list[Stream], seconds: float) -> dict[str, Any]:
    """Of all that ended well. Seconds."""
    well = [each for each in streams if not each.error and each.tokens]
    gaps = [b - a for each in well for a, b in itertools.pairwise(each.tokens)]
    output = sum(each.output for each in well)
    return {
        "requests": len(streams),
        "failed": len(streams) - len(well),
        "errors": sorted({each.error for each in streams if each.error}),
        "seconds": round(seconds, 3),
        "requests_per_s": round(len(well) / seconds, 3),
        "tokens_per_s": round(output / seconds, 2),
        "ttft_s": _percentiles([each.tokens[0] - each.asked for each in well]),
        "inter_token_s": _percentiles(gaps),
        "duration_s": _percentiles([each.tokens[-1] - each.asked for each in well]),
        "ttft_s_by_variant": {
            name: _percentiles([e.tokens[0] - e.asked for e in well if e.variant == name])
            for name in dict.fromkeys(each.variant for each in well)
        },
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {f"p{share * 100:g}": round(ordered[round(share * last)], 4) for share in _SHOWN}


def _print(result: dict[str, Any]) -> None:
    out.print(
        f"{result['requests']} requests, {result['failed']} failed, in {result['seconds']:g} s: "
        f"{result['requests_per_s']:g} requests/s, {result['tokens_per_s']:g} tokens/s"
    )
    for error in result["errors"][:5]:
        out.print(f"  {error}")
    table = Table("milliseconds", *(f"p{share * 100:g}" for share in _SHOWN))
    rows = {
        "time to first token": result["ttft_s"],
        **{f"  {name}": each for name, each in result["ttft_s_by_variant"].items()},
        "between tokens": result["inter_token_s"],
        "whole answer": result["duration_s"],
    }
    for name, values in rows.items():
        if values:
            table.add_row(name, *(f"{1000 * value:.1f}" for value in values.values()))
    print_table(table)
