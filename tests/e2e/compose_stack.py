"""The stack of compose.yaml as tests use it: PostgreSQL, Valkey with TLS and users, two APIs behind
the proxy, two scalers, replicas as containers."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import yaml
from docker import DockerClient
from docker.models.containers import Container

from loraplex.embedded.ports import free_port
from loraplex.store.models import ModelStore
from tests.e2e.running import Platform, answers, until

ROOT = Path(__file__).parents[2]
PROJECT = "loraplex-e2e"
HOME = "/var/lib/loraplex"


def this_machine() -> str:
    """Its address for containers: the engine's default bridge."""
    bridge = DockerClient.from_env().networks.get("bridge").attrs
    return str(bridge["IPAM"]["Config"][0].get("Gateway", "172.17.0.1"))


@dataclass
class ComposeStack(Platform):
    """`home`: a folder for the tests' own files, `.env` among them."""

    takes_paths = False

    def compose(self, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        files = ["--file", str(ROOT / "compose.yaml"), "--file", str(self.home / "tests.yaml")]
        project = ["--project-name", PROJECT, "--env-file", str(self.home / ".env")]
        command = ["docker", "compose", *project, *files, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, **options
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._secrets()['LORAPLEX_PORT']}"

    @property
    def api_key(self) -> str:
        return self._secrets()["LORAPLEX_API_KEY"]

    @property
    def redis_url(self) -> str:
        password = self._secrets()["VALKEY_PASSWORD"]
        address = _address(self._container("valkey"))
        certificate = quote(str(self.home / "valkey.pem"))
        query = f"ssl_cert_reqs=required&ssl_check_hostname=False&ssl_ca_certs={certificate}"
        return f"rediss://tests:{password}@{address}:6379/0?{query}"

    def _secrets(self) -> dict[str, str]:
        lines = (self.home / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")

    def _container(self, service: str, number: int = 1) -> Container:
        labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
        labels.append(f"com.docker.compose.container-number={number}")
        (found,) = DockerClient.from_env().containers.list(all=True, filters={"label": labels})
        return found

    def process(self, name: str) -> psutil.Process:
        return _first_process(self._container(name))

    @contextmanager
    def no_starts(self) -> Iterator[None]:
        tasks = self._container("tasks")
        tasks.pause()
        try:
            yield
        finally:
            tasks.unpause()

    def replica_process(self, replica: str) -> psutil.Process:
        return _first_process(DockerClient.from_env().containers.get(f"loraplex-{replica}"))

    def replicas(self) -> list[str]:
        ours = {"label": f"loraplex.home={PROJECT}"}
        found = DockerClient.from_env().containers.list(all=True, filters=dict(ours))
        return [container.labels["loraplex.replica"] for container in found]

    def base_model(self, folder: Path) -> str:
        _copy(folder, f"models/tests--{folder.name}")
        return f"tests/{folder.name}"

    @contextmanager
    def another_api(self) -> Iterator[tuple[httpx.Client, psutil.Process]]:
        """The second of the API's containers, past the proxy."""
        container = self._container("api", 2)
        api = self.http()
        api.base_url = httpx.URL(f"http://{_address(container)}:8000")
        yield api, _first_process(container)
        until(lambda: answers(api), bool)  # its container was started again


def _first_process(container: Container) -> psutil.Process:
    """As this machine sees it. A signal to it is an accident to the engine, which then starts the
    container again, while its own `kill` is a wish."""
    container.reload()
    return psutil.Process(container.attrs["State"]["Pid"])


def _address(container: Container) -> str:
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"]
    return str(networks[f"{PROJECT}_default"]["IPAddress"])


@contextmanager
def up(home: Path, models: ModelStore, settings: dict[str, str]) -> Iterator[ComposeStack]:
    """`docker compose up` with the tests' settings; its logs lie in `home` when it is gone."""
    home.mkdir(parents=True)
    stack = ComposeStack(home, {})
    _configure(stack, settings)
    _copy(models.root, "models")  # those that this machine has needn't be fetched again
    try:
        made = stack.compose("up", "--detach", "--wait", "--no-build")
        assert made.returncode == 0, made.stderr + stack.compose("logs").stdout
        certificate = f"{HOME}/tls/valkey.pem"
        public = stack.compose("exec", "-T", "api", "cat", certificate).stdout
        (home / "valkey.pem").write_text(public)
        stack.environment |= {"LORAPLEX_URL": stack.url, "LORAPLEX_API_KEY": stack.api_key}
        stack.environment["LORAPLEX_HOME"] = str(home / "cli")
        yield stack
    finally:
        (home / "compose.log").write_text(stack.compose("logs", "--no-color").stdout)
        stack.compose("stop")  # first: who starts replicas would start another
        down = stack.compose("down", "--volumes", "--remove-orphans")
        assert down.returncode == 0, down.stderr
    assert stack.replicas() == []


def _configure(stack: ComposeStack, settings: dict[str, str]) -> None:
    """Its .env, and an override: what all services are told besides, a user that may configure."""
    made = (ROOT / ".env.example").read_text().replace("<secret>", os.urandom(12).hex())
    key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDA="
    made = made.replace("<key>", key) + f"LORAPLEX_PORT={free_port()}\n"
    if os.environ.get("DOCKER_HOST", "").startswith("unix://"):
        made += f"DOCKER_SOCKET={os.environ['DOCKER_HOST'].removeprefix('unix://')}\n"
    (stack.home / ".env").write_text(made)
    services = ("api", "scaler", "tasks", "jobs")
    override: dict[str, Any] = {"services": {each: {"environment": settings} for each in services}}
    users = yaml.safe_load((ROOT / "compose.yaml").read_text())["configs"]["valkey_users"][
        "content"
    ]
    users += "user tests on >${VALKEY_PASSWORD} ~* &* +@all\n"
    override["configs"] = {"valkey_users": {"content": users}}
    (stack.home / "tests.yaml").write_text(json.dumps(override))


def _copy(folder: Path, target: str) -> None:
    """Into the home folder of the stack, which is made if need be."""
    client = DockerClient.from_env()
    labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.volume": "state"}
    volume = client.volumes.create(f"{PROJECT}_state", labels=labels)
    binds = {
        volume.name: {"bind": HOME, "mode": "rw"},
        # What its links lead to as well.
        **{str(each): {"bind": str(each), "mode": "ro"} for each in {folder, *_linked(folder)}},
    }
    copy = f"cp -rL {folder} {HOME}/{target} && chown -R 10001 {HOME}"
    command = ["sh", "-c", copy]
    client.containers.run("loraplex/api", command, user="root", volumes=binds, remove=True)


def _linked(folder: Path) -> set[Path]:
    return {file.resolve().parent for file in folder.iterdir() if file.is_symlink()}
