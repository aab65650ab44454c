"""Loads to judge scaling laws by: seeded generators, the same seed gives the same trace.

Their statistics follow the "Synthetic recipe" and the figures of the Azure and ServeGen traces in
the scaling note, section 2. Laws may be tuned on `TUNING`; `HELD_OUT` is for the verdict alone.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, exp, gamma, log, pi, sin, sqrt
from pathlib import Path
from random import Random
from typing import NamedTuple

AZURE_CONV = Path(__file__).parent / "data" / "azure_llm_2023_conv.csv"
MAX_PROMPT, MAX_OUTPUT = 16384, 2048  # tokens: the tails' caps
HOUR_S, DAY_S, WINDOW_S = 3600.0, 86400.0, 600.0
CLIENTS = 43  # as in ServeGen's m-small
ZIPF = 1.3  # top 1/5/10 of 43 clients carry 35/68/80 % (m-small: 30/77/93)

DRAWN = 8  # clients of one draw
HELD_OUT = tuple(f"client_{i}" for i in range(1, 2 * DRAWN + 1))


class Request(NamedTuple):
    at: float  # seconds since the trace began
    prompt: int  # tokens
    output: int


@dataclass(frozen=True)
class Trace:
    name: str
    requests: list[Request]  # by time
    seconds: float  # the horizon
    held_out: bool


@dataclass(frozen=True)
class Lengths:
    """Lognormal lengths in tokens: (mu, sigma) of each."""

    prompt: tuple[float, float]
    output: tuple[float, float]

    def request(self, rng: Random, at: float) -> Request:
        prompt = round(rng.lognormvariate(*self.prompt))
        output = round(rng.lognormvariate(*self.output))
        return Request(at, min(max(1, prompt), MAX_PROMPT), min(max(1, output), MAX_OUTPUT))


CONV = Lengths((6.8, 0.8), (4.9, 0.9))
CODE = Lengths((7.3, 0.9), (2.6, 1.1))


def tuning(seed: int = 0) -> list[Trace]:
    return [make(seed) for make in _TUNING.values()]


def bursty(seed: int = 0) -> Trace:
    """4 h: bursts of some 300 requests, 200 s apart on average, in a trickle; gap CV about 12."""
    rng, end = Random(f"bursty:{seed}"), 4 * HOUR_S
    at, times = 0.0, list(_poisson(rng, 0.014, 0.0, end))
    while (at := at + rng.expovariate(1 / 200)) < end:
        stop = min(end, at + rng.uniform(10, 30))
        times += _poisson(rng, 15 * rng.lognormvariate(-0.08, 0.4), at, stop)
        at = stop
    return _trace("bursty", rng, times, CONV, end)


def diurnal(seed: int = 0) -> Trace:
    """A day's curve in 4 h: from almost nothing to 8 requests a second, and back."""
    rng, end = Random(f"diurnal:{seed}"), 4 * HOUR_S
    times = [
        at for at in _poisson(rng, 8.0, 0.0, end) if rng.random() < 0.02 + 0.98 * _day(at / end)
    ]
    return _trace("diurnal", rng, times, CONV, end)


def poisson_low(seed: int = 0) -> Trace:
    """12 h at a request each three minutes: the hardest question for a keep-alive."""
    rng, end = Random(f"poisson_low:{seed}"), 12 * HOUR_S
    return _trace("poisson_low", rng, list(_poisson(rng, 1 / 180, 0.0, end)), CONV, end)


def hourly(seed: int = 0) -> Trace:
    """24 h: a few requests within two minutes, once an hour, five minutes early or late."""
    rng, times = Random(f"hourly:{seed}"), []
    for hour in range(24):
        start = (hour + 0.5) * HOUR_S + rng.uniform(-300, 300)
        times += [start + rng.uniform(0, 120) for _ in range(rng.randint(2, 6))]
    return _trace("hourly", rng, times, CONV, DAY_S)


def flash_crowd(seed: int = 0) -> Trace:
    """1 h at a request each two seconds, 40 times that for five minutes from minute 30 on."""
    rng, end = Random(f"flash_crowd:{seed}"), HOUR_S
    times = [*_poisson(rng, 0.5, 0.0, end), *_poisson(rng, 0.5 * 39, 1800.0, 2100.0)]
    return _trace("flash_crowd", rng, times, CONV, end)


def azure_conv(seed: int = 0) -> Trace:
    """The hour of a chat service that Azure published (see data/README.md); no seed changes it."""
    with AZURE_CONV.open(newline="") as file:
        rows = csv.DictReader(file)
        requests = [
            Request(float(r["arrival_s"]), int(r["prompt_tokens"]), int(r["output_tokens"]))
            for r in rows
        ]
    return Trace("azure_conv", requests, float(ceil(requests[-1].at)), False)


def code_completion(seed: int = 0) -> Trace:
    """1 h like Azure's code trace: spells of two minutes, in them about every other second with a
    cluster of up to 65 requests; 70 % of all seconds are empty, 2.5/s on average, gap CV >= 10."""
    rng, times, second, active = Random(f"code_completion:{seed}"), [], 0, True
    while second < HOUR_S:
        # Spells between bounds, rather than exponential: an hour has few, and a seed must not
        # decide whether it has any.
        spell = round(rng.uniform(80, 160) if active else rng.uniform(50, 150))
        for start in range(second, min(second + spell, int(HOUR_S)) if active else second):
            if rng.random() < 0.54:
                size = min(65, ceil(rng.lognormvariate(1.75, 0.9)))
                times += [start + rng.random() for _ in range(size)]
        second, active = second + spell, not active
    return _trace("code_completion", rng, times, CODE, HOUR_S)


def zipf(n_deployments: int, hours: float, seed: int = 0, rate: float = 2.0) -> list[Trace]:
    """`n_deployments` that share `rate` requests a second by Zipf: a few carry the load, most sleep
    most of the time."""
    shares = _zipf_shares(n_deployments)
    return [
        _client(f"zipf_{rank}", Random(f"zipf:{seed}:{rank}"), rank, rate * share, hours * HOUR_S)
        for rank, share in enumerate(shares, 1)
    ]


def held_out() -> list[Trace]:
    """Two draws: the knobs' values that others are compared with were chosen when the first had
    been seen, the second came after."""
    return [*clients(0), *clients(1)]


def clients(draw: int) -> list[Trace]:
    """One day each of eight clients, drawn by Zipf from a population like ServeGen's m-small; none
    meant to send more than a request a second (a wild one may)."""
    rng, shares = Random(f"held_out:{draw}"), _zipf_shares(CLIENTS)
    ranks: list[int] = []
    while len(ranks) < DRAWN:
        rank = rng.choices(range(1, CLIENTS + 1), shares)[0]
        if rank not in ranks:
            ranks.append(rank)
    made = []
    for i, rank in enumerate(ranks, draw * DRAWN + 1):
        rate, name = min(1.0, 6.0 * shares[rank - 1]), f"client_{i}"
        made.append(_client(name, Random(f"{name}:{draw}"), rank, rate, DAY_S, held=True))
    return made


def _client(
    name: str, rng: Random, rank: int, rate: float, seconds: float, held: bool = False
) -> Trace:
    """A deployment by windows of 10 min: awake or not, then a rate and a law of gaps for each.

    It is awake in a share of the windows that falls with its rank (the median of 43 in 21 %) and
    stays awake for three on average; its rate while awake makes up for that.
    """
    lengths = CODE if rng.random() < 0.3 else CONV
    wild, weibull = rng.random() < 0.1, rng.random() < 0.5
    usual_cv = exp(rng.uniform(log(10), log(40))) if wild else rng.uniform(1, 3)
    share, phase, times = max(0.08, 1 / sqrt(rank)), rng.random(), list[float]()
    sleep = 1 / 3 if share < 1 else 0.0
    wake = share / (1 - share) / 3 if share < 1 else 1.0
    awake = rng.random() < share
    for window in range(ceil(seconds / WINDOW_S)):
        start = window * WINDOW_S
        if awake:
            curve = 0.4 + 1.2 * _day(start / DAY_S + phase)  # mean 1 over a day
            busy = rate / share * curve * rng.lognormvariate(-0.125, 0.5)
            cv = usual_cv if wild else min(3.0, max(1.0, usual_cv * rng.lognormvariate(0, 0.2)))
            end = min(start + WINDOW_S, seconds)
            times += _renewal(rng, busy, cv, weibull and not wild, start, end)
        awake = rng.random() >= sleep if awake else rng.random() < wake
    return _trace(name, rng, times, lengths, seconds, held)


def _trace(
    name: str, rng: Random, times: list[float], lengths: Lengths, seconds: float, held: bool = False
) -> Trace:
    return Trace(name, [lengths.request(rng, at) for at in sorted(times)], seconds, held)


def _poisson(rng: Random, rate: float, start: float, end: float) -> Iterator[float]:
    at = start
    while (at := at + rng.expovariate(rate)) < end:
        yield at


def _renewal(
    rng: Random, rate: float, cv: float, weibull: bool, start: float, end: float
) -> Iterator[float]:
    """Arrivals with Gamma or Weibull gaps of mean 1 / rate. It begins before `start`: else every
    window would begin with a long wait and carry too little."""
    shape = _weibull_shape(cv) if weibull else 1 / cv**2
    mean_gap = gamma(1 + 1 / shape) if weibull else shape
    at = start - WINDOW_S * rng.random()
    while at < end:
        gap = rng.weibullvariate(1.0, shape) if weibull else rng.gammavariate(shape, 1.0)
        at += gap / mean_gap / rate
        if start <= at < end:
            yield at


def _weibull_shape(cv: float) -> float:
    """The shape whose gaps have this CV (1 … 3), by bisection; CV falls with the shape."""
    low, high = 0.3, 1.1
    for _ in range(40):
        shape = (low + high) / 2
        if gamma(1 + 2 / shape) / gamma(1 + 1 / shape) ** 2 - 1 > cv**2:
            low = shape
        else:
            high = shape
    return shape


def _day(part: float) -> float:
    """A day's curve: 0 at midnight, 1 at noon, 0.5 on average."""
    return sin(pi * part) ** 2


def _zipf_shares(count: int) -> list[float]:
    weights = [rank**-ZIPF for rank in range(1, count + 1)]
    return [weight / sum(weights) for weight in weights]


_TUNING: dict[str, Callable[[int], Trace]] = {
    "bursty": bursty,
    "diurnal": diurnal,
    "poisson_low": poisson_low,
    "hourly": hourly,
    "flash_crowd": flash_crowd,
    "azure_conv": azure_conv,
    "code_completion": code_completion,
}
TUNING = tuple(_TUNING)
