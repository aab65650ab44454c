"""moto's EC2 on loopback with what it lacks: tokens that make a start happen once, types without
room, throttling, and machines: each instance runs `infra/ec2/boot.sh` with metadata of its own."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from werkzeug.serving import make_server

from tests.fakes.aws import REGION, client, environment_of, with_what_moto_lacks

BOOT = Path(__file__).parents[2] / "infra" / "ec2" / "boot.sh"
_ACCOUNT = "123456789012"
_ERROR = (
    "<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors>"
    "<RequestID>x</RequestID></Response>"
)
_NO_ROOM = (
    '<CreateFleetResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><fleetId>fleet-0</fleetId>'
    "<errorSet><item><errorCode>InsufficientInstanceCapacity</errorCode><errorMessage>We currently "
    "do not have sufficient {} capacity.</errorMessage></item></errorSet></CreateFleetResponse>"
)


@dataclass
class Ec2:
    environment: dict[str, str]
    template: str
    subnets: list[str]
    image: str = ""
    full: set[str] = field(default_factory=set)  # instance types without room
    hang: set[str] = field(default_factory=set)  # replicas whose instances never boot
    throttle: int = 0  # calls that are refused from now on
    interrupted: set[str] = field(default_factory=set)  # replicas whose spot instance is taken
    calls: list[str] = field(default_factory=list)
    _answers: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    _machines: dict[str, "_Machine"] = field(default_factory=dict)

    def instances(self) -> list[Any]:
        from moto.ec2.models import ec2_backends

        return list(ec2_backends[_ACCOUNT][REGION].all_instances())

    def types(self) -> list[str]:
        """Of living instances."""
        return [each.instance_type for each in self.instances() if each.state == "running"]

    def wsgi(self, app: Callable[..., Any]) -> Callable[..., Any]:
        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            asked = dict(parse_qsl(body.decode(), keep_blank_values=True))
            action = asked.get("Action", "")
            self.calls.append(action)
            if action and self.throttle:
                self.throttle -= 1
                return _xml(start, "503 x", _ERROR.format("RequestLimitExceeded", "Too many."))
            if action == "CreateFleet":
                with self._starting:
                    return self._create(app, environ, start, asked)
            if action == "GetConsoleOutput":
                machine = self._machines.get(asked["InstanceId"])
                log = base64.b64encode((machine.log() if machine else "").encode()).decode()
                return _xml(start, "200 OK", _CONSOLE.format(asked["InstanceId"], log))
            return app(environ | {"wsgi.input": _Body(body)}, start)

        return answer

    def _create(
        self, app: Callable[..., Any], environ: Any, start: Any, asked: dict[str, str]
    ) -> Any:
        """As EC2 documents client tokens: the same call again has the same answer."""
        token = asked["ClientToken"]
        before = self._answers.get(token)
        if before is not None and before[0] != asked:
            return _xml(start, "400 x", _ERROR.format("IdempotentParameterMismatch", token))
        if before is None:
            fits = _with_room(asked, self.full)
            if fits is None:
                before = (asked, "200 OK", [], [_NO_ROOM.format(", ".join(self.full)).encode()])
            else:
                said: list[Any] = []
                body = urlencode(fits).encode()
                sent = environ | {"wsgi.input": _Body(body), "CONTENT_LENGTH": str(len(body))}
                found = list(app(sent, lambda status, headers, *_: said.extend((status, headers))))
                before = (asked, said[0], said[1], found)
            self._answers[token] = before
        start(before[1], before[2])
        return before[3]

    def run_machines(self, ended: threading.Event) -> None:
        while not ended.wait(0.05):
            for instance in self.instances():
                try:
                    named = _tags(instance)
                except RuntimeError:  # they are changed just now
                    continue
                hangs = named.get("loraplex:replica") in self.hang
                machine = self._machines.get(instance.id)
                if machine is None:
                    ours = "loraplex:replica" in named or "loraplex:warm" in named
                    if instance.state == "running" and ours and not hangs:
                        self._machines[instance.id] = _Machine(self, instance)
                elif instance.state != "running":
                    machine.off()
                elif machine.ended and not hangs:
                    stops = instance.instance_initiated_shutdown_behavior == "stop"
                    if stops and "loraplex:warm" in named:  # moto forgets the template's
                        self._machines.pop(instance.id).off()
                        instance.stop()
                    else:
                        instance.terminate()
        for machine in self._machines.values():
            machine.off()


_CONSOLE = (
    '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><instanceId>{}'
    "</instanceId><output>{}</output></GetConsoleOutputResponse>"
)


def _with_room(asked: Mapping[str, str], full: set[str]) -> dict[str, str] | None:
    """Without the overrides that have none; moto takes the first of the others."""
    head = "LaunchTemplateConfigs.1.Overrides."
    kinds = {k: v for k, v in asked.items() if k.startswith(head) and k.endswith(".InstanceType")}
    gone = [k.removesuffix("InstanceType") for k, v in kinds.items() if v in full]
    if len(gone) == len(kinds):
        return None
    left = {k: v for k, v in asked.items() if not any(k.startswith(each) for each in gone)}
    numbers = sorted({int(k.split(".")[3]) for k in left if k.startswith(head)})
    found = {}
    for name, value in left.items():
        parts = name.split(".")
        if name.startswith(head):
            parts[3] = str(numbers.index(int(parts[3])) + 1)
        found[".".join(parts)] = value
    return found


def _tags(instance: Any) -> dict[str, str]:
    return {each["key"]: each["value"] for each in instance.get_tags()}


class _Machine:
    """An instance that has booted."""

    def __init__(self, ec2: Ec2, instance: Any) -> None:
        class Metadata(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._say("session")

            def do_GET(self) -> None:
                path = unquote(self.path).removeprefix("/latest/meta-data/")
                if self.headers["x-aws-ec2-metadata-token"] != "session":
                    self.send_error(401)
                    return
                named = _tags(instance)
                if path == "spot/instance-action" and named["loraplex:replica"] in ec2.interrupted:
                    self._say('{"action": "terminate"}')
                elif path.removeprefix("tags/instance/") in named:
                    self._say(named[path.removeprefix("tags/instance/")])
                else:
                    self.send_error(404)

            def _say(self, text: str) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._metadata = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        threading.Thread(target=self._metadata.serve_forever, daemon=True).start()
        folder = Path(ec2.environment["EC2_FOLDER"])
        self._file = folder / f"{instance.id}-{time.monotonic_ns()}.log"
        shared = folder / "loraplex.env"
        shared.touch()
        environment = os.environ | {
            "IMDS": f"http://127.0.0.1:{self._metadata.server_address[1]}",
            "LORAPLEX_ENV_FILE": str(shared),
            "LORAPLEX_HOME": str(folder / instance.id),  # its own disk
            "LORAPLEX_PATIENCE_S": "2",
            "LORAPLEX_RUN": f"{sys.executable} -m gpu_worker",
            "LORAPLEX_HALT": "true",
        }
        with self._file.open("w") as log:
            self._boot = subprocess.Popen(
                [str(BOOT)], env=environment, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        return self._boot.poll() is not None

    def log(self) -> str:
        return self._file.read_text()

    def off(self) -> None:
        """The power."""
        if self._boot.poll() is None:
            os.killpg(self._boot.pid, signal.SIGKILL)
            self._boot.wait()
        self._metadata.shutdown()


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int = -1) -> bytes:
        end = len(self._content) if size < 0 else size
        found, self._content = self._content[:end], self._content[end:]
        return found


def _xml(start: Callable[..., Any], status: str, body: str) -> list[bytes]:
    start(status, [("content-type", "text/xml")])
    return [body.encode()]


@contextmanager
def ec2(folder: Path) -> Iterator[Ec2]:
    """A region with a launch template and two subnets."""
    from moto.ec2.models import ec2_backends
    from moto.server import DomainDispatcherApplication, create_backend_app

    environment = {"EC2_FOLDER": str(folder)}
    region = Ec2(environment, "", [])
    app = with_what_moto_lacks(region.wsgi(DomainDispatcherApplication(create_backend_app)))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment |= environment_of(f"http://127.0.0.1:{server.server_port}")
    account = client("ec2", environment)
    image = account.describe_images()["Images"][0]["ImageId"]
    region.image = image
    data = {"ImageId": image, "InstanceInitiatedShutdownBehavior": "terminate"}
    made = account.create_launch_template(LaunchTemplateName=folder.name, LaunchTemplateData=data)
    region.template = made["LaunchTemplate"]["LaunchTemplateId"]
    region.subnets = [each["SubnetId"] for each in account.describe_subnets()["Subnets"][:2]]
    ended = threading.Event()
    machines = threading.Thread(target=region.run_machines, args=(ended,))
    machines.start()
    try:
        yield region
    finally:
        ended.set()
        machines.join()
        server.shutdown()
        ec2_backends[_ACCOUNT][REGION].reset()  # moto's are the process', not the server's
