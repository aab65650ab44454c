"""`python -m gpu_worker.warm_parent`: imports once what a replica needs, and forks replicas.

Importing torch and transformers takes seconds, a fork milliseconds. Nothing may be computed here
and no thread may run, because neither survives a fork: each child begins its own, with its own
settings, GPU context and connections. Whoever asks falls back to an ordinary start, so refusing is
always safe: this process refuses when it has a thread, when its code is no longer that on disk, and
what depends on variables that libraries have read already. `loraplex/warm.py` is the protocol.
"""

import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import msgspec

from gpu_worker import DEFAULTS
from loraplex import warm
from loraplex.keys import Lane
from loraplex.logs import configure
from loraplex.settings import Settings
from loraplex.store.models import ModelStore, ModelUnavailable

log = logging.getLogger("gpu_worker.warm_parent")

_LOOK_S = 2.0  # for ended children, new models, new code
_NEEDED = (
    *("gpu_worker.__main__", "gpu_worker.worker", "gpu_worker.vitals", "loraplex.metrics.served"),
    *("loraplex.store.adapters", "loraplex.store.adapter_cache"),
)
_PACKAGES = ("gpu_worker", "kernels", "loraplex")


class WarmParent:
    """Owner of the socket. `serve` returns twice: in the parent at its end, in each child."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.home / "replicas"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._models = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
        self._known: set[Path] = set()
        self._wanted: dict[Path, None] = {}  # models that replicas were asked for, latest last
        self._code = code_on_disk()
        self._environment = warm.read_at_start(os.environ)
        self._stopping = False
        self._wakes, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve(self) -> tuple[list[str], float] | None:
        """None: told to end. Else this is a child: its arguments, and when it was forked."""
        import_everything()
        self._learn(self._models.root.glob("*"))
        self._listen()
        log.info("ready to fork, threads: %d", threads())
        while not self._stopping:
            ready, _, _ = select.select([self._listener, self._wakes], [], [], _LOOK_S)
            _reap()
            if self._wakes in ready:
                os.read(self._wakes, 4096)
            if self._listener in ready:
                line, _ = self._listener.accept()
                with line:
                    child = self._answer(line)
                if child is not None:
                    return child
            elif not ready:
                self._learn(self._models.root.glob("*"))
                self._assemble()
            if code_on_disk() != self._code:
                log.info("the code has changed: ending, to be started again with the new one")
                break
        self._close()
        return None

    def _listen(self) -> None:
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        file = self._folder / warm.SOCKET
        file.unlink(missing_ok=True)  # of one that was killed
        before = os.umask(0o177)
        with warm.reachable(self._folder) as address:
            self._listener.bind(address)
        os.umask(before)
        self._listener.listen(16)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _close(self) -> None:
        (self._folder / warm.SOCKET).unlink(missing_ok=True)
        self._listener.close()

    def _answer(self, line: socket.socket) -> tuple[list[str], float] | None:
        """Fork what is asked for, or say why not. Not None in the child."""
        line.settimeout(warm.PATIENCE_S)
        handles: list[int] = []
        try:
            raw, handles, _, _ = socket.recv_fds(line, warm.MOST_BYTES, 1)
            ask = warm.decode_ask(raw)
            reason = self._refusal(ask, handles)
            if reason is not None:
                log.warning("refused: %s", reason)
                line.send(warm.encode(warm.Refused(reason)))
                return None
            if os.fork() == 0:
                forked = time.time()
                self._begin(ask, line)
                return ask.arguments, forked  # the lock stays open: it is the child's
        except (OSError, msgspec.MsgspecError) as failed:
            log.warning("not forked: %s", failed)
            return None
        for handle in handles:
            os.close(handle)
        handles = []
        folders = self._folder_of(ask.arguments)
        self._learn(folders)
        for folder in folders:
            self._wanted.pop(folder, None)
            self._wanted[folder] = None
        return None

    def _refusal(self, ask: warm.Ask, handles: list[int]) -> str | None:
        if len(handles) != 1:
            return "the lock is missing"
        if ask.python != sys.executable:
            return f"{ask.python} is another Python"
        if warm.read_at_start(DEFAULTS | ask.environment) != self._environment:
            return "variables of its environment had to be set before the imports"
        if (count := threads()) != 1:
            return f"{count} threads run here"
        if code_on_disk() != self._code:
            return "the code has changed"
        return None

    def _begin(self, ask: warm.Ask, line: socket.socket) -> None:
        """In the child. It ends here when something fails: the loop is its parent's."""
        try:
            self._become(ask)
            line.send(warm.encode(warm.Forked(os.getpid())))
            if line.recv(len(warm.GO)) != warm.GO:  # who asked has given up
                os._exit(0)
        except BaseException:
            log.exception("a forked replica could not begin")
            os._exit(1)

    def _become(self, ask: warm.Ask) -> None:
        """In the child: a session, signals, files, environment and folder of its own."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        self._listener.close()
        os.close(self._wakes)
        os.close(self._waker)
        output = os.open(ask.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.clear()
        os.environ.update(DEFAULTS | ask.environment)
        os.chdir(ask.folder)
        sys.argv = ["gpu_worker", *ask.arguments]
        Path("/proc/self/comm").write_text("loraplex-worker"[:15])  # for ps and top

    def _learn(self, folders: Iterable[Path]) -> None:
        """Import what these models are made of, so that their next start finds it."""
        from gpu_worker.engine.weights import import_classes

        fresh = {f for f in folders if (f / "config.json").is_file()} - self._known
        for folder in fresh:
            self._known.add(folder)
            import_classes(folder)
        if fresh:  # collecting garbage in a child would copy every page that was imported
            gc.collect()
            gc.freeze()

    def _assemble(self) -> None:
        """Put one more model together that was asked for, so that its next start finds it whole."""
        from gpu_worker.engine.assembled import ASSEMBLED, MOST_MODELS
        from gpu_worker.engine.weights import assemble

        ASSEMBLED.forget_gone()
        for folder in list(self._wanted)[-MOST_MODELS:]:
            if ASSEMBLED.missing(folder):
                ASSEMBLED.keep(folder, lambda folder=folder: assemble(folder, "auto"))
                gc.collect()
                gc.freeze()
                return

    def _folder_of(self, arguments: list[str]) -> list[Path]:
        """Of the model of a replica with these arguments."""
        try:
            lane = Lane.parse(arguments[arguments.index("--lane") + 1])
            found = self._models.find(lane.base_model)
        except (ValueError, IndexError, ModelUnavailable):
            return []
        return [found] if found is not None else []


def import_everything() -> None:
    """All that a replica imports before its first token, but what depends on its model."""
    # Its threads would be started by numpy's import. Children compute nothing with BLAS.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for name in _NEEDED:
        importlib.import_module(name)
    if Path("/dev/nvidiactl").exists():
        importlib.import_module("kernels.gpu.family")
    # Loading begins no thread: no pool of readers, no bar that somebody watches.
    from transformers.utils import logging as transformers_logging

    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    transformers_logging.disable_progress_bar()


def threads() -> int:
    """Of this process, those that Python doesn't know of, too."""
    return len(os.listdir("/proc/self/task"))


def code_on_disk() -> tuple[int, int]:
    """Changes when a file of ours does: a fork runs what was imported, a new process what is there.
    Of torch and others nothing is known; the platform is started again when they are upgraded."""
    root = Path(__file__).parents[1]
    stats = [f.stat() for package in _PACKAGES for f in (root / package).rglob("*.py")]
    return len(stats), max(each.st_mtime_ns for each in stats)


def _reap() -> None:
    """Collect ended children, so that none stays as a zombie."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main() -> int:
    settings = Settings()
    configure("warm_parent", settings.log_level)
    child = WarmParent(settings).serve()
    if child is None:
        return 0
    from gpu_worker.__main__ import main as replica

    return replica(*child)


if __name__ == "__main__":
    sys.exit(main())
