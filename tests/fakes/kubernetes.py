"""As much of a cluster as the driver needs: an API server for pods on loopback, and a node that
runs their first containers as processes of this machine."""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_POD = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods(/(?P<name>[^/]+)(?P<log>/log)?)?")


@dataclass
class Cluster:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    pods: dict[str, "_Running"] = field(default_factory=dict)
    refusals: list[tuple[int, str]] = field(default_factory=list)  # of the next calls
    no_room: bool = False  # no node takes what comes now
    node_answers: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, pod: dict[str, Any]) -> tuple[int, Any]:
        name = pod["metadata"]["name"]
        with self.lock:
            if name in self.pods:
                return 409, _status(409, f'pods "{name}" already exists')
            self.pods[name] = _Running(self, pod)
            return 201, self.pods[name].shown()

    def delete(self, name: str) -> tuple[int, Any]:
        found = self.pods.get(name)
        if found is None:
            return 404, _status(404, f'pods "{name}" not found')
        found.end()
        return 200, found.shown()


class _Running:
    """A pod on its node."""

    def __init__(self, cluster: Cluster, pod: dict[str, Any]) -> None:
        self._cluster = cluster
        self._pod = pod
        pod["metadata"] |= {"uid": secrets.token_hex(8), "creationTimestamp": _now()}
        self._log = cluster.folder / f"{pod['metadata']['name']}-{pod['metadata']['uid']}.log"
        self._process = None if cluster.no_room else self._start()
        self._deleted: str | None = None
        self._killed = ""

    def _start(self) -> "subprocess.Popen[bytes]":
        container = self._pod["spec"]["containers"][0]
        command = [*container["command"], *container["args"]]
        own = {each["name"]: each["value"] for each in container.get("env", ())}
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable if each == "python" else each for each in command],
                env=os.environ | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """SIGTERM, and SIGKILL after its grace; then it is gone."""
        with self._cluster.lock:
            if self._deleted is not None:
                return
            self._deleted = _now()
        threading.Thread(target=self._end).start()

    def _end(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(self._pod["spec"]["terminationGracePeriodSeconds"])
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._cluster.node_answers.wait()
        with self._cluster.lock:
            del self._cluster.pods[self._pod["metadata"]["name"]]

    def patch(self, change: dict[str, Any]) -> None:
        if change == {"spec": {"activeDeadlineSeconds": 1}}:
            self._killed = "DeadlineExceeded"
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def log(self, lines: int) -> str:
        return "".join(self._log.read_text().splitlines(keepends=True)[-lines:])

    def shown(self) -> dict[str, Any]:
        deleted = {"deletionTimestamp": self._deleted} if self._deleted else {}
        return self._pod | {"metadata": self._pod["metadata"] | deleted, "status": self._status()}

    def _status(self) -> dict[str, Any]:
        if self._process is None:
            told = {"message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            return {"phase": "Pending", "conditions": [condition | told]}
        code = self._process.poll()
        if code is None:
            return {"phase": "Running"}
        ended = {"exitCode": abs(code), "reason": "Error"}
        container = {"name": "replica", "image": "x", "imageID": "x", "ready": False}
        container |= {"restartCount": 0, "state": {"terminated": ended}}
        return {
            "phase": "Failed",
            "reason": self._killed or None,
            "containerStatuses": [container],
        }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size) or "{}")
            url = urlsplit(self.path)
            asked = _POD.fullmatch(url.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if cluster.refusals:
                code, message = cluster.refusals.pop(0)
                self._say(code, _status(code, message))
            elif asked is None:
                self._say(404, _status(404, f"the server has no {url.path}"))
            elif self.command == "POST":
                self._say(*cluster.create(body))
            elif asked["name"] is None:
                self._say(200, {"items": _selected(cluster, query["labelSelector"])})
            elif self.command == "DELETE":
                self._say(*cluster.delete(asked["name"]))
            else:
                self._of_one(asked["name"], bool(asked["log"]), query, body)

        do_GET = do_POST = do_DELETE = do_PATCH = _answer

        def _of_one(self, name: str, log: bool, query: dict[str, str], body: Any) -> None:
            found = cluster.pods.get(name)
            if found is None:
                self._say(404, _status(404, f'pods "{name}" not found'))
                return
            if self.command == "PATCH":
                found.patch(body)
            self._say(200, found.log(int(query["tailLines"])) if log else found.shown())

        def _say(self, code: int, answer: Any) -> None:
            text = answer if isinstance(answer, str) else json.dumps(answer)
            kind = "text/plain" if isinstance(answer, str) else "application/json"
            self.send_response(code)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            """Silent."""

    return Handler


def _selected(cluster: Cluster, selector: str) -> list[dict[str, Any]]:
    wanted = dict(each.split("=", 1) for each in selector.split(","))
    with cluster.lock:
        shown = [each.shown() for each in cluster.pods.values()]
    return [each for each in shown if wanted.items() <= each["metadata"]["labels"].items()]


@contextmanager
def kubernetes(folder: Path) -> Iterator[Cluster]:
    """Its kubeconfig is in `environment`."""
    cluster = Cluster(folder)
    cluster.node_answers.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "users": [{"name": "me", "user": {"token": "x"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "llm"}}
        ],
    }
    file = folder / "kubeconfig.json"
    file.write_text(json.dumps(config))
    cluster.environment = {"KUBECONFIG": str(file)}
    try:
        yield cluster
    finally:
        for pod in list(cluster.pods.values()):
            pod.patch({"spec": {"activeDeadlineSeconds": 1}})
        cluster.node_answers.set()
        server.shutdown()
        server.server_close()
