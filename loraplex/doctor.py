"""What may be wrong with a platform on this machine: one look each, none of them changes anything.

Looks at the platform that runs in LORAPLEX_HOME, else at what the settings say.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import httpx
import psutil
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import ValidationError
from pydantic_settings import SettingsError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from loraplex import __version__
from loraplex.broker.connection import UnfitRedis, check, connect, server_version
from loraplex.database import alembic_config
from loraplex.database import connect as connect_database
from loraplex.embedded.record import PlatformRecord
from loraplex.embedded.valkey import NoServer, find_server
from loraplex.settings import EmbeddedSettings
from loraplex.store.model_bucket import model_bucket
from loraplex.unknown_settings import check_all, told, unknown

_FEW_BYTES, _VERY_FEW_BYTES = 5 * 2**30, 2**30
_SKEW_S, _LONG_SKEW_S = 0.5, 3.0  # a lease is 5 s
_FULL = 0.9
_PROCESSES = ("supervisor", "valkey", "api", "scaler", "tasks", "imports")


class Level(IntEnum):
    OK = 0
    WARN = 1
    BAD = 2


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    subject: str
    text: str
    remedy: str = ""  # what to do


def examine() -> Iterator[Finding]:
    yield Finding(Level.OK, "version", f"Loraplex {__version__}, Python {sys.version.split()[0]}")
    try:
        settings = EmbeddedSettings()
        check_all()
    except (ValidationError, SettingsError) as wrong:
        for name, text in told(wrong):
            yield Finding(Level.BAD, "settings", f"{name}={text}", "See docs/settings.md.")
        return
    for text in unknown(os.environ):
        yield Finding(Level.WARN, "settings", text, "See docs/settings.md.")
    record = PlatformRecord.load(settings.home)
    yield from _home(settings.home)
    yield from _platform(record)
    yield from _port(settings, record)
    yield from _redis(settings, record)
    yield from _database(settings)
    yield from _models(settings.models_dir)
    yield from _model_store(settings)
    yield from _gpu()
    if record is not None and record.supervised:
        yield from _api(record)


def _home(home: Path) -> Iterator[Finding]:
    place = next(each for each in (home, *home.parents) if each.exists())
    if not os.access(place, os.W_OK):
        remedy = "Set LORAPLEX_HOME to a folder that you may write."
        yield Finding(Level.BAD, "home", f"{place} can't be written.", remedy)
        return
    free = shutil.disk_usage(place).free
    level = Level.OK
    if free < _FEW_BYTES:
        level = Level.BAD if free < _VERY_FEW_BYTES else Level.WARN
    text = f"{home}, {free / 2**30:.1f} GiB free on its disk"
    remedy = "Free some: loraplex models rm, or another LORAPLEX_HOME." if level else ""
    yield Finding(level, "disk", text, remedy)


def _platform(record: PlatformRecord | None) -> Iterator[Finding]:
    if record is None:
        yield Finding(Level.OK, "platform", "none runs here. Start one: loraplex up")
        return
    alive = {process.name for process in record.alive}
    missing = [name for name in _PROCESSES if name not in alive]
    if not missing:
        yield Finding(Level.OK, "platform", f"up at {record.url}")
    elif "supervisor" in missing:
        text = f"its supervisor was killed; still there: {', '.join(sorted(alive)) or 'nothing'}"
        yield Finding(Level.BAD, "platform", text, "loraplex down, then loraplex up")
    else:
        text = f"not running: {', '.join(missing)}; the supervisor starts them again"
        remedy = f"Read why: loraplex logs {missing[0]}"
        yield Finding(Level.BAD, "platform", text, remedy)


def _port(settings: EmbeddedSettings, record: PlatformRecord | None) -> Iterator[Finding]:
    port = settings.port
    if record is not None and record.supervised and record.url.endswith(f":{port}"):
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, port))
        except OSError as taken:
            remedy = "Stop that, or set LORAPLEX_PORT to another port."
            text = f"{settings.host}:{port} can't be used: {taken.strerror}{_listener(port)}"
            yield Finding(Level.BAD, "port", text, remedy)
            return
    yield Finding(Level.OK, "port", f"{settings.host}:{port} is free")


def _listener(port: int) -> str:
    """Who has it, where this user may know that."""
    try:
        for each in psutil.net_connections("tcp"):
            listens = each.status == psutil.CONN_LISTEN and each.pid
            if listens and tuple(each.laddr)[1:2] == (port,):
                return f" (by {psutil.Process(each.pid).name()}, process {each.pid})"
    except psutil.Error:
        return ""
    return ""


def _redis(settings: EmbeddedSettings, record: PlatformRecord | None) -> Iterator[Finding]:
    own = "LORAPLEX_REDIS_URL" in os.environ
    if record is None and not own:
        try:
            yield Finding(Level.OK, "redis", f"loraplex up will start {find_server()}")
        except NoServer as missing:
            yield Finding(Level.BAD, "redis", str(missing), "Install valkey or redis, 7 or newer.")
        return
    url = record.redis_url if record is not None and not own else settings.redis_url
    client = connect(url)
    try:
        check(client)
        info = client.info()
        asked = time.time()
        seconds, microseconds = client.time()
        skew = abs(seconds + microseconds / 1e6 - (asked + time.time()) / 2)
    except UnfitRedis as unfit:
        yield Finding(Level.BAD, "redis", str(unfit), "CONFIG SET maxmemory-policy noeviction")
        return
    except (RedisError, OSError) as away:
        remedy = "Is it up, and is LORAPLEX_REDIS_URL right? loraplex logs valkey"
        yield Finding(Level.BAD, "redis", f"does not answer: {away}", remedy)
        return
    finally:
        client.close()
    yield from _redis_memory(info)
    level = Level.OK if skew < _SKEW_S else Level.WARN if skew < _LONG_SKEW_S else Level.BAD
    remedy = "Synchronise the clocks (chrony, systemd-timesyncd)." if level else ""
    yield Finding(level, "clock", f"{skew:.3f} s off from Redis'", remedy)


def _redis_memory(info: dict[str, object]) -> Iterator[Finding]:
    version = server_version(info)
    used, most = int(str(info["used_memory"])), int(str(info["maxmemory"]))
    if not info["aof_enabled"]:
        text = f"{version} keeps no AOF: a restart loses accepted requests"
        yield Finding(Level.WARN, "redis", text, "CONFIG SET appendonly yes")
    elif info.get("aof_last_write_status") == "err":
        text = "its AOF can't be written: nothing is accepted"
        yield Finding(Level.BAD, "redis", text, "Is its disk full?")
    elif most and used > _FULL * most:
        text = f"{used / most:.0%} of its memory are in use: new requests get 503"
        yield Finding(Level.BAD, "redis", text, "Raise maxmemory (LORAPLEX_VALKEY_MAX_MIB).")
    else:
        bound = f" of {most / 2**20:.0f}" if most else ""
        text = f"{version}, noeviction, AOF, {used / 2**20:.0f}{bound} MiB in use"
        yield Finding(Level.OK, "redis", text)


def _database(settings: EmbeddedSettings) -> Iterator[Finding]:
    if not settings.database_url and not (settings.home / "loraplex.db").exists():
        return  # made at the first start
    wanted = ScriptDirectory.from_config(alembic_config(settings.database)).get_current_head()
    try:
        with connect_database(settings.database).connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as away:
        remedy = "Is LORAPLEX_DATABASE_URL right?"
        text = f"does not answer: {str(away).splitlines()[0]}"
        yield Finding(Level.BAD, "database", text, remedy)
        return
    if found == wanted:
        yield Finding(Level.OK, "database", f"schema {found}")
    else:
        text = f"its schema is {found}, this release's is {wanted}"
        remedy = "python -m loraplex.database (a newer schema: use the newer release)"
        yield Finding(Level.BAD, "database", text, remedy)


def _models(folder: Path) -> Iterator[Finding]:
    """Those in the store: can their files be what they say?"""
    for model in sorted(folder.glob("*")) if folder.is_dir() else ():
        if not model.is_dir() or model.name.startswith("."):
            continue
        wrong = unloadable(model)
        if wrong:
            remedy = f"Fetch it again: remove {model}"
            yield Finding(Level.BAD, "model", f"{model.name}: {wrong}", remedy)
        else:
            yield Finding(Level.OK, "model", model.name)


def _model_store(settings: EmbeddedSettings) -> Iterator[Finding]:
    """The bucket of base models: can it be asked?"""
    bucket = model_bucket(settings)
    if bucket is None:
        return
    try:
        bucket.manifest("loraplex/doctor")
    except OSError as failed:
        remedy = "See LORAPLEX_MODEL_STORE in docs/settings.md, and AWS' credentials and region."
        yield Finding(Level.BAD, "model store", str(failed), remedy)
    else:
        yield Finding(Level.OK, "model store", f"{bucket} answers")


def unloadable(model: Path) -> str:
    """Why its files can't be loaded; "": nothing speaks against it."""
    try:
        config = json.loads((model / "config.json").read_text())
    except (OSError, ValueError) as broken:
        return f"config.json can't be read ({broken})"
    if not config.get("architectures"):
        return "config.json names no architecture"
    if not (model / "tokenizer.json").is_file():
        return "there is no tokenizer.json"
    weights = list(model.glob("*.safetensors"))
    if not weights:
        return "there are no *.safetensors"
    for file in weights:
        with file.open("rb") as content:
            size = int.from_bytes(content.read(8), "little")
            try:
                header = json.loads(content.read(size)) if 0 < size < 2**30 else None
            except ValueError:
                header = None
        if header is None:
            return f"{file.name} has no safetensors header"
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
        if file.stat().st_size != 8 + size + max(ends, default=0):
            return f"{file.name} is cut off"
    return ""


def _gpu() -> Iterator[Finding]:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        names = [
            pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count)
        ]
    except pynvml.NVMLError:
        yield Finding(Level.OK, "gpu", "none here: replicas compute on the CPU")
        return
    try:
        import torch
    except ImportError:
        yield Finding(Level.WARN, "gpu", f"{', '.join(names)}, but torch isn't installed")
        return
    if torch.cuda.is_available():
        yield Finding(Level.OK, "gpu", ", ".join(names))
    else:
        text = f"{', '.join(names)}, but torch {torch.__version__} can't use it"
        yield Finding(Level.BAD, "gpu", text, "Install torch's CUDA build, or a newer driver.")


def _api(record: PlatformRecord) -> Iterator[Finding]:
    headers = {"authorization": f"Bearer {record.api_key}"}
    try:
        with httpx.Client(base_url=record.url, headers=headers, timeout=5) as api:
            version = api.get("/health").json()["version"]
            rows = api.get("/api/v1/deployments").json()["data"]
    except (httpx.HTTPError, ValueError, KeyError) as broken:
        remedy = "Read why: loraplex logs api"
        yield Finding(Level.BAD, "api", f"{record.url} does not answer well: {broken}", remedy)
        return
    if version != __version__:
        text = f"the API is {version}, this command {__version__}"
        yield Finding(Level.BAD, "version", text, "loraplex down, then loraplex up")
    errored = [row for row in rows if row["status"] == "errored"]
    for row in errored:
        remedy = f"loraplex logs {row['name']}, then loraplex start {row['name']}"
        yield Finding(Level.BAD, "deployment", f"{row['name']}: {row['reason'][:300]}", remedy)
    if not errored:
        yield Finding(Level.OK, "api", f"answers, {len(rows)} deployments, none errored")
