"""Compile the C sources beside this file into one shared library, once a machine.

`python -m kernels.cpu.build native` does it now; without `native` it makes a portable one beside
the sources, for an image whose machine has no compiler: it is used where none can be made.
"""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
_SIGNATURES = {
    "lpx_pack": (c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int64),
    "lpx_linear": (*(c_void_p,) * 4, *(c_int64,) * 4),
    "lpx_adapted_linear": (
        *(*(c_void_p,) * 4, *(c_int64,) * 5),
        *(c_void_p, c_int64, c_void_p),
    ),
    "lpx_store_kv": (*(c_void_p,) * 5, *(c_int64,) * 6),
    "lpx_decode": (
        *(*(c_void_p,) * 6, *(c_int64,) * 8),
        *(c_double, c_double, c_int64, c_void_p, c_int64),
    ),
    "lpx_rms_norm": (*(c_void_p,) * 3, c_int64, c_int64, c_double),
    "lpx_silu_mul": (c_void_p, c_void_p, c_int64, c_int64),
    "lpx_rope": (*(c_void_p,) * 3, *(c_int64,) * 4),
    "lpx_add": (*(c_void_p,) * 3, *(c_int64,) * 2),
    "lpx_run": (c_void_p, c_int64, c_int64),
}


@cache
def library() -> ctypes.CDLL | None:
    """The loaded library, compiled if need be; None where there is none and no C compiler."""
    if sys.platform != "linux":
        return None
    name = f"loraplex-cpu-{fingerprint()}.so"
    for folder in _folders():
        try:
            if (folder / name).is_file() or compile_into(folder / name):
                return _bind(ctypes.CDLL(str(folder / name)))
        except OSError:  # not writable, or mounted noexec: try the next
            continue
    portable = _portable()
    return _bind(ctypes.CDLL(str(portable))) if portable.is_file() else None


def compile_into(file: Path, march: str = "native") -> bool:
    """Write the library to `file`. False: no compiler, or it failed. Raises OSError."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        fresh = Path(scratch) / file.name
        arch = f"-march={march}" if platform.machine() == "x86_64" else f"-mcpu={march}"
        command = [compiler, *_FLAGS, arch, *map(str, _sources("*.c")), "-o", str(fresh), "-lm"]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return False
        fresh.rename(file)
    return True


def _bind(loaded: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int
    loaded.lpx_panel_columns.restype = c_int64
    return loaded


def _folders() -> Iterator[Path]:
    yield _HERE / "_built"
    yield Path.home() / ".cache" / "loraplex"


def _sources(pattern: str) -> list[Path]:
    return sorted(_HERE.glob(pattern))


def fingerprint(*, cpu: bool = True) -> str:
    """Of the sources, the flags and what this CPU can do: homes are shared between machines."""
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for source in _sources("*.[ch]"):
        digest.update(source.read_bytes())
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpu and cpuinfo.is_file() else []
    abilities = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    digest.update(abilities.encode())
    return digest.hexdigest()[:16]


def _portable() -> Path:
    return _HERE / "_built" / f"loraplex-cpu-{fingerprint(cpu=False)}.so"


if __name__ == "__main__":
    if sys.argv[1:] == ["native"]:
        sys.exit(0 if library() is not None else "no C compiler, or it failed")
    oldest = {"x86_64": "x86-64-v3"}.get(platform.machine(), "native")  # AVX2
    sys.exit(0 if compile_into(_portable(), oldest) else "no C compiler, or it failed")
