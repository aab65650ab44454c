"""The garbage collector of a process that works in short turns: what lives long isn't looked at
again and again.

Tokens, and what a look has seen, are freed by their reference counts. Looking for cycles after each
700 new objects, as Python does, and through all that was imported, took a quarter of an API
process' time and a third of a look's.
"""

import gc


def collect_less() -> None:
    """Call it when everything is imported and built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
