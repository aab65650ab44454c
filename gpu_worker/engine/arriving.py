"""Weights that are used while they are still coming: each tensor goes to the device as soon as its
bytes are there.

A model that is put together without a conversion has its checkpoint's own pages as weights, mapped.
So it can be put together before they have come. If anything was computed from them meanwhile, or
written to, it is put together again when all is there.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

log = logging.getLogger(__name__)

SMAPS = Path("/proc/self/smaps")
_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


class NotArrived(Exception):
    """The weights don't come; another try may help."""


class Arriving(Protocol):
    def wait(self, file: Path, start: int, end: int) -> None:
        """For these bytes of the file. Raises anything when they don't come."""

    def wait_all(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Region:
    """Of this process' memory, a file's own bytes."""

    file: Path
    offset: int  # in the file
    start: int
    end: int


def put_together(
    folder: Path, dtype: torch.dtype, assemble: Callable[[], Any], arriving: Arriving
) -> Any:
    """The model, whose weights come with `place`. Raises what `assemble` does, NotArrived."""
    try:
        if _stored_as(folder) == {_NAMES.get(dtype)}:
            model = assemble()
            if _places(model, folder) is not None:
                return model
            log.info("%s: put together again when all is there: it isn't mapped", folder)
    except Exception as early:
        log.info("%s: put together when all is there: %s", folder, early)
    with _told():
        arriving.wait_all()
    return assemble()


def place(model: Any, folder: Path, device: torch.device, arriving: Arriving) -> None:
    """Onto the device, each tensor when it is there, in the order in which they come. Raises
    NotArrived."""
    for tensor, file, start in _places(model, folder) or ():
        with _told():
            arriving.wait(file, start, start + tensor.nbytes)
        tensor.data = tensor.data.to(device)  # on a CPU it is there
    with _told():
        arriving.wait_all()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as failed:
        raise NotArrived(str(failed)) from failed


def _stored_as(folder: Path) -> set[str]:
    """What safetensors calls the dtypes of the weights."""
    found = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            found |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    return found


def _places(model: Any, folder: Path) -> list[tuple[torch.Tensor, Path, int]] | None:
    """Of each weight, in the order of their files: which bytes it is. None: one isn't a file's own
    bytes, or this can't be known."""
    regions, found = list(_unwritten(folder)), []
    for tensor in {id(each): each for each in model.state_dict(keep_vars=True).values()}.values():
        at = tensor.data_ptr()
        of = [r for r in regions if r.start <= at and at + tensor.nbytes <= r.end]
        if not of or not tensor.is_contiguous():
            return None
        found.append((tensor, of[0].file, of[0].offset + at - of[0].start))
    return sorted(found, key=lambda each: each[1:])


def _unwritten(folder: Path) -> Iterator[Region]:
    """Where files of the folder are mapped, as Linux tells it; without those that were written to,
    which then have pages of their own."""
    region, inside = None, str(folder.resolve()) + "/"
    for line in SMAPS.read_text().splitlines() if SMAPS.exists() else ():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            start, end = (int(each, 16) for each in name.split("-"))
            _, offset, _, _, *path = rest.split(maxsplit=4)
            file = path[0] if path else ""
            region = (
                Region(Path(file), int(offset, 16), start, end) if file.startswith(inside) else None
            )
        elif name == "Anonymous:" and region is not None and int(rest.split()[0]) == 0:
            yield region
