"""Ids of entries in Redis streams: milliseconds of Redis' clock, and a number within them."""


def in_order(entry: str) -> tuple[int, int]:
    """Of two ids the later one is greater."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


def before(entry: str) -> str:
    """An id of another stream than the entry's, from before the entry came."""
    return f"{max(0, in_order(entry)[0] - 1)}-0"
