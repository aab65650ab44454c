"""Replicas as containers, one each, on one Docker engine or several.

The engines keep all that this driver knows: a container's name is made of its replica's id, and a
second one of the same name is refused; labels tell whose it is. So any process can list them, and
a start that was cut off between creating and starting is finished by whoever asks next.
"""

import builtins
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import requests
from docker import DockerClient
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig

from loraplex.docker_settings import DockerSettings
from loraplex.settings import ScalerSettings
from loraplex.unknown_settings import variable
from loraplex.worker_settings import WorkerSettings
from scheduler.drivers.base import ReplicaSpec, Running

GRACE_S = 3
HOME = "/var/lib/loraplex"  # of the image
MODELS = "/models"  # the image has it, as its user's
_SECRETS = {"LORAPLEX_DATABASE_URL", "LORAPLEX_SECRET_KEY"}
_LOOK_TIMEOUT_S = 3  # shorter than a scaler's leadership: it looks at every tick
_CALL_TIMEOUT_S = 60  # to create a container takes seconds on a busy engine
_NAME_PATIENCE_S = 5.0
_CUT_OFF_S = 60.0  # created so long ago and never started: nobody is about to
_ALIVE = ("running", "paused", "restarting")
_CONFLICT = 409  # the name is taken, or it is being removed just now


class DockerDriver:
    """Makes a client for each call: nothing is shared between a task worker's threads, and an
    engine may restart."""

    def __init__(self, settings: ScalerSettings, docker: DockerSettings) -> None:
        self._settings = settings
        self._docker = docker
        self._hosts = docker.hosts or {"local": ""}
        self._label = docker.installation or str(settings.home)
        self._environment = _environment(settings)
        if not docker.volume:  # the engine would make them, as root's
            for folder in (settings.models_dir, settings.adapters_dir):
                folder.mkdir(parents=True, exist_ok=True)

    def start(self, spec: ReplicaSpec) -> None:
        with self._engine(spec.host) as engine:
            container = self._create_or_get(engine, spec)
            if container.labels.get("loraplex.home") != self._label:
                raise OSError(f"{_name(spec.id)} is a container of another installation.")
            if container.status == "created":  # else it runs, or has ended: a replica runs once
                container.start()

    def stop(self, replica: str) -> None:
        """On whichever host it is. A host that can't be asked may be the one: raises OSError."""
        unknown: OSError | None = None
        for host in self._hosts:
            try:
                if self._remove(host, replica):
                    return
            except OSError as failed:
                unknown = failed
        if unknown is not None:
            raise unknown

    def kill(self, replica: str) -> None:
        for host in self._hosts:
            with self._engine(host) as engine, suppress(NotFound):
                engine.containers.get(_name(replica)).kill()

    def list(self) -> builtins.list[Running]:
        """Raises OSError when a host can't be asked: its replicas are not known to be gone, and a
        list without them would say so. They serve on meanwhile; only scaling waits."""
        return [running for host in self._hosts for running in self._list(host)]

    def _create_or_get(self, engine: DockerClient, spec: ReplicaSpec) -> Container:
        """A name is taken some time before its container can be seen, and after it is gone."""
        deadline = time.monotonic() + _NAME_PATIENCE_S
        while True:
            try:
                return self._create(engine, spec)
            except APIError as refused:
                if refused.status_code != _CONFLICT:
                    raise
            try:
                return engine.containers.get(_name(spec.id))
            except NotFound:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _create(self, engine: DockerClient, spec: ReplicaSpec) -> Container:
        labels = self._docker.labels | {
            "loraplex.home": self._label,
            "loraplex.replica": spec.id,
            "loraplex.lane": spec.lane,
        }
        return engine.containers.create(
            self._docker.image,
            ["python", "-m", "gpu_worker", "--replica", spec.id, "--lane", spec.lane],
            name=_name(spec.id),
            labels=labels,
            environment=self._environment | dict(spec.settings),
            **_isolation(self._settings, self._docker, spec),
        )

    def _remove(self, host: str, replica: str) -> bool:
        """False: it isn't there."""
        with self._engine(host) as engine:
            try:
                container = engine.containers.get(_name(replica))
                if container.labels.get("loraplex.home") != self._label:
                    return False
                container.stop(timeout=GRACE_S)  # SIGTERM, then SIGKILL
                container.remove(force=True, v=True)
            except NotFound:
                return False
            except APIError as refused:
                if refused.status_code != _CONFLICT:  # somebody else is removing it
                    raise
            return True

    def _list(self, host: str) -> Iterator[Running]:
        with self._engine(host, _LOOK_TIMEOUT_S) as engine:
            containers = engine.containers.list(
                all=True, sparse=True, filters={"label": f"loraplex.home={self._label}"}
            )
            for container in containers:
                running = _look(container)
                if running is not None:
                    yield running

    @contextmanager
    def _engine(self, host: str, timeout_s: int = _CALL_TIMEOUT_S) -> Iterator[DockerClient]:
        """A client of a host's engine. What goes wrong with it becomes an OSError."""
        if host not in self._hosts:
            known = ", ".join(self._hosts)
            raise OSError(f"There is no Docker host {host!r}; LORAPLEX_DOCKER_HOSTS has: {known}.")
        url = self._hosts[host]
        environment = os.environ | ({"DOCKER_HOST": url} if url else {})
        try:
            client = DockerClient.from_env(environment=environment, timeout=timeout_s)
            with closing(client):
                yield client
        except ImageNotFound as missing:
            raise OSError(
                f"Docker host {host!r} has no image {self._docker.image!r}. Build or pull "
                "it there, or set LORAPLEX_DOCKER_IMAGE."
            ) from missing
        except APIError as refused:
            raise OSError(f"Docker host {host!r}: {refused.explanation}") from refused
        except (DockerException, requests.RequestException) as away:
            where = url or os.environ.get("DOCKER_HOST") or "its default socket"
            raise OSError(
                f"Docker host {host!r} does not answer at {where}: {away}. Is the engine running, "
                "and may this user reach it? A host that is gone for good has to leave "
                "LORAPLEX_DOCKER_HOSTS; otherwise check DOCKER_HOST."
            ) from away


def _name(replica: str) -> str:
    return f"loraplex-{replica}"


def _environment(settings: ScalerSettings) -> dict[str, str]:
    """What is set here for replicas, without the secrets that they don't need."""
    known = {variable(WorkerSettings, name) for name in WorkerSettings.model_fields} - _SECRETS
    given = {name: value for name, value in os.environ.items() if name in known}
    given["LORAPLEX_REDIS_URL"] = settings.replica_redis_url or settings.redis_url
    given["LORAPLEX_HOME"] = HOME
    if settings.adapter_store:  # copies where it may write; and who it is to the store
        given.setdefault("LORAPLEX_ADAPTER_DISK", "/tmp/adapters")  # noqa: S108
    if settings.model_store:
        given["LORAPLEX_MODEL_DISK"] = MODELS
    if settings.adapter_store or settings.model_store:
        given |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return given | {"HOME": "/tmp"}  # noqa: S108  # caches of Triton's and others


def _isolation(
    settings: ScalerSettings, docker: DockerSettings, spec: ReplicaSpec
) -> dict[str, Any]:
    """What a container may see and use: its image, the home folder to read, one GPU, a /tmp."""
    memory = docker.memory_gib
    gpu = DeviceRequest(device_ids=[str(spec.slot)], capabilities=[["gpu"]])
    return {
        "network": docker.network or None,
        "volumes": _volumes(settings, docker),
        "read_only": True,
        # Triton loads what it compiles from there.
        "tmpfs": {"/tmp": "exec" if docker.gpus else ""},  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": None if memory is None else int(memory * 2**30),
        "device_requests": [gpu] if docker.gpus else None,
        "restart_policy": {"Name": "no"},  # a replica runs once; the scaler starts another
        "healthcheck": {"test": ["NONE"]},  # the image's is the task worker's
        "log_config": LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
    }


def _volumes(settings: ScalerSettings, docker: DockerSettings) -> dict[str, dict[str, str]]:
    """A volume as a whole; of a home folder what replicas read, without the queue and database.
    Copies of base models are the machine's: its replicas share them."""
    copies = {"loraplex-models": {"bind": MODELS, "mode": "rw"}} if settings.model_store else {}
    if docker.volume:
        return copies | {docker.volume: {"bind": HOME, "mode": "ro"}}
    return copies | {
        str(settings.models_dir): {"bind": f"{HOME}/models", "mode": "ro"},
        str(settings.adapters_dir): {"bind": f"{HOME}/adapters", "mode": "ro"},
    }


def _look(container: Container) -> Running | None:
    """None: it isn't started yet, or just went."""
    replica = container.attrs["Labels"]["loraplex.replica"]
    if container.status in _ALIVE:
        return Running(replica, alive=True)
    young = time.time() - container.attrs["Created"] < _CUT_OFF_S
    if container.status == "created" and young:
        return None  # somebody is starting it; or was cut off, and then will be asked again
    try:
        return Running(replica, alive=False, log_tail=_tail(container))
    except APIError as refused:
        if refused.status_code not in (_CONFLICT, requests.codes.not_found):
            raise
        return None


def _tail(container: Container, size: int = 2000) -> str:
    """The end of its log; if it never wrote one, why the engine couldn't start it."""
    log = container.logs(tail=100)[-size:].decode(errors="replace")
    if log:
        return log
    container.reload()
    return str(container.attrs["State"].get("Error", ""))
