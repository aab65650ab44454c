"""How a process is asked of the warm parent (`gpu_worker/warm_parent.py`), over a Unix socket.

Three messages: what to run, with the replica's lock; the forked child's pid; "go" from who asked.
A child that hears no "go" ends without having done anything: so who asks may give up at any time,
and start the process in the ordinary way, without ever having two of it.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

SOCKET = "warm.sock"  # in `home/replicas`
GO = b"go"
PATIENCE_S = 2.0
MOST_BYTES = 160 * 1024  # of one message; the kernel takes a little over 200 KiB

# Variables of the environment that are read once, at a process' start or by a library when it is
# loaded: a fork can't be given others.
_READ_AT_START = (
    *("PYTHON", "LD_", "MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_"),
    *("TORCH", "PYTORCH", "TRITON_", "HF_", "TRANSFORMERS_", "LC_", "LANG", "TZ", "ONEDNN_"),
    *("DNNL_", "ATEN_", "THP_", "NCCL_", "NVIDIA_"),
)


class Ask(msgspec.Struct, array_like=True, frozen=True, tag="ask.1"):
    """A process to become."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str  # to work in
    log: str  # file for what it prints
    python: str  # the interpreter that would run it otherwise


class Forked(msgspec.Struct, array_like=True, frozen=True, tag="forked.1"):
    """The child is there and waits for "go"."""

    pid: int


class Refused(msgspec.Struct, array_like=True, frozen=True, tag="refused.1"):
    """Start it in the ordinary way."""

    reason: str


encode = msgspec.msgpack.encode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
_decode_answer = msgspec.msgpack.Decoder(Forked | Refused).decode


class NotForked(OSError):
    """The warm parent isn't there, doesn't answer, or can't be the parent of this process."""


def fork(folder: Path, ask: Ask, lock: int) -> int:
    """The pid of a process that runs `ask` and holds the file `lock`. Raises NotForked."""
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
            reachable(folder) as address,
        ):
            line.settimeout(PATIENCE_S)
            line.connect(address)
            socket.send_fds(line, [encode(ask)], [lock])
            answer: Forked | Refused = _decode_answer(line.recv(MOST_BYTES))
            if isinstance(answer, Refused):
                raise NotForked(answer.reason)
            line.send(GO)
            return answer.pid
    except (OSError, msgspec.MsgspecError) as failed:
        raise NotForked(str(failed) or type(failed).__name__) from failed


@contextmanager
def reachable(folder: Path) -> Iterator[str]:
    """The socket's address, however long the folder's path: the kernel takes 107 bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """What a fork has from its parent, whatever its own environment says."""
    # One thread of BLAS is the parent's own: none may run at a fork.
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) and name != "OPENBLAS_NUM_THREADS"
    }
