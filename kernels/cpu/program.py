"""Record a forward pass once, run it without Python between its operations: a CUDA graph's idea.

`Program.capture` runs a function whose tensors have a fixed number of rows, noting every operation
in order: calls of our kernels as they are, other torch operations to be repeated into the memory
that their results had. `run` then does the same for the first `rows` rows, in one call of C for
each stretch of kernels. What depends on values (a `.item()`, a `nonzero`) can't be recorded.
"""

import struct
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.cpu.build import library

_ROWS_AT = {  # the kernels in the order of program.c; which argument counts rows
    "lpx_linear": 4,
    "lpx_adapted_linear": 4,
    "lpx_store_kv": 5,
    "lpx_decode": 6,
    "lpx_rms_norm": 3,
    "lpx_silu_mul": 2,
    "lpx_rope": 3,
    "lpx_add": 3,
}
_OPS = list(_ROWS_AT)
_WORDS = 22  # of a Call in program.c
_ALLOCATIONS = {"aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided"}
_BY_VALUE = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"),
    *("aten::_unique2", "aten::unique_dim", "aten::is_nonzero", "aten::bincount"),
}


class NotRecordable(Exception):
    """The function looks at values, or gives other results when it is repeated."""


class _Active(threading.local):
    recorder: "_Recorder | None" = None


_ACTIVE = _Active()


@cache
def _function(name: str) -> Callable[..., int]:
    lib = library()
    assert lib is not None
    function: Callable[..., int] = getattr(lib, name)
    return function


def call(name: str, *arguments: int | float | None) -> int:
    """Call a kernel, and note it where a recording is under way."""
    if _ACTIVE.recorder is not None:
        _ACTIVE.recorder.note(name, arguments)
    return _function(name)(*arguments)


class Program:
    """A recorded function. `output` is what it returned; each run fills it anew."""

    def __init__(self) -> None:
        self.output = torch.empty(0)
        self._steps: list[Callable[[int], None]] = []
        self._kept: list[Any] = []

    @classmethod
    def capture(cls, function: Callable[[], torch.Tensor], rows: int) -> "Program":
        """Record `function`, whose inputs are tensors of `rows` rows that stay where they are.

        Raises NotRecordable.
        """
        program = cls()
        recorder = _Recorder(rows)
        _ACTIVE.recorder = recorder
        try:
            with recorder:
                program.output = function()
        finally:
            _ACTIVE.recorder = None
        program._steps = recorder.steps()
        program._kept = recorder.kept
        first = program.output.clone()
        program.run(rows)
        if not torch.equal(first, program.output):
            raise NotRecordable("a second run gave other results")
        return program

    def run(self, rows: int) -> torch.Tensor:
        """Repeat it for the first `rows` rows of its inputs."""
        for step in self._steps:
            step(rows)
        return self.output


class _Recorder(TorchDispatchMode):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.kept: list[Any] = []
        self._rows = rows
        self._noted: list[list[int] | Callable[[int], None]] = []

    def note(self, name: str, arguments: tuple[int | float | None, ...]) -> None:
        """A call of our own."""
        counted = arguments[_ROWS_AT[name]]
        assert isinstance(counted, int)
        each, rest = divmod(counted, self._rows)
        if rest:
            raise NotRecordable(f"{name}: {counted} rows in a step of {self._rows}")
        words = [_word(argument) for argument in arguments]
        words += [0] * (_WORDS - 2 - len(words))
        self._noted.append([_OPS.index(name), each, *words])

    def steps(self) -> list[Callable[[int], None]]:
        """Neighbouring calls of ours become one call of C."""
        steps: list[Callable[[int], None]] = []
        stretch: list[list[int]] = []
        for noted in (*self._noted, None):
            if isinstance(noted, list):
                stretch.append(noted)
                continue
            if stretch:
                steps.append(_stretch(np.array(stretch, dtype=np.int64)))
                stretch = []
            if noted is not None:
                steps.append(noted)
        return steps

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name
        if name in _BY_VALUE:
            raise NotRecordable(f"{name} looks at values")
        self.kept += [result, args, kwargs]
        if name in _ALLOCATIONS or _is_view(result, args, func):
            return result
        if not self._add(func, args, kwargs, result):
            self._noted.append(_repeat(func, args, kwargs, result))
        return result

    def _add(self, func: Any, args: Any, kwargs: dict[str, Any], y: Any) -> bool:
        """A residual connection: the one operation that every layer has besides our kernels."""
        if func is not torch.ops.aten.add.Tensor or kwargs:
            return False
        a, b = args
        same = isinstance(b, torch.Tensor) and a.shape == b.shape == y.shape
        if not same or y.shape[:-1].numel() % self._rows or y.dtype != torch.float32:
            return False
        if not (a.is_contiguous() and b.is_contiguous() and a.dtype == b.dtype == y.dtype):
            return False
        width = y.shape[-1]
        pointers = (a.data_ptr(), b.data_ptr(), y.data_ptr())
        self.note("lpx_add", (*pointers, y.numel() // width, width))
        return True


def _is_view(result: Any, args: Any, func: Any) -> bool:
    """Whether an operation only looks at its input's memory in another way."""
    if func._schema.is_mutable or not isinstance(result, torch.Tensor):
        return False
    memory = result.untyped_storage().data_ptr()
    inputs = (a for a in tree_leaves(args) if isinstance(a, torch.Tensor))
    return any(a.untyped_storage().data_ptr() == memory for a in inputs)


def _repeat(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Callable[[int], None]:
    targets = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
    in_place = func._schema.is_mutable

    def step(_: int) -> None:
        again = func(*args, **kwargs)
        if not in_place:
            fresh = (t for t in tree_leaves(again) if isinstance(t, torch.Tensor))
            for target, value in zip(targets, fresh, strict=True):
                target.copy_(value)

    return step


def _stretch(calls: "np.ndarray[Any, Any]") -> Callable[[int], None]:
    run, at, count = _function("lpx_run"), calls.ctypes.data, len(calls)

    def step(rows: int, _kept: Any = calls) -> None:
        if run(at, count, rows):
            raise MemoryError("decode attention has no memory for its scores")

    return step


def _word(argument: int | float | None) -> int:
    if isinstance(argument, float):
        (bits,) = struct.unpack("<q", struct.pack("<d", argument))
        return int(bits)
    return argument or 0
