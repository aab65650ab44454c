"""Replicas as pods, one each, made of a template for each host of the fleet.

The cluster keeps all that this driver knows: a pod's name is made of its replica's id, and a second
one of the same name is refused; labels tell whose it is. So any process can list them. Nothing
starts a pod again (`restartPolicy: Never`): the scaler starts another replica.
"""

import builtins
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, cast

import httpx2
import yaml
from lightkube import ApiError, Client
from lightkube.core.exceptions import ConfigError, LoadResourceError
from lightkube.models.core_v1 import PodStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from loraplex.kubernetes_settings import KubernetesSettings
from scheduler.drivers.base import ReplicaSpec, Running

GRACE_S = 3
INSTALLATION = "loraplex/installation"
REPLICA = "loraplex/replica"
LANE = "loraplex/lane"
_CALL_TIMEOUT_S = 20.0
_LOOK_TIMEOUT_S = 3.0  # shorter than a scaler's leadership: it looks at every tick
_GONE_PATIENCE_S = 10.0  # of a stop: its processes are to be gone, too
_TAIL_LINES = 100
_TAIL_SIZE = 2000
_STUCK = ("CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")
_ENDED = ("Succeeded", "Failed")
_NOT_FOUND, _CONFLICT = 404, 409


class KubernetesDriver:
    """Makes a client for each call: nothing is shared between a task worker's threads, and a pod's
    token is renewed while it runs."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings

    def start(self, spec: ReplicaSpec) -> None:
        """A pod of this name that is being deleted has to be gone before: raises OSError then."""
        pod = self._pod(spec)
        with _told(), self._client() as client:
            try:
                client.create(pod)
            except ApiError as refused:
                if refused.status.code != _CONFLICT:
                    raise
                self._check_is_ours(_get(client, spec.id))

    def stop(self, replica: str) -> None:
        with _told(), self._client() as client:
            pod = _get(client, replica)
            if pod is None or not self._is_ours(pod):
                return
            try:
                client.delete(Pod, _name(replica), grace_period=GRACE_S)
            except ApiError as refused:
                if refused.status.code != _NOT_FOUND:
                    raise
            deadline = time.monotonic() + _GONE_PATIENCE_S
            while time.monotonic() < deadline:
                now = _get(client, replica)
                if now is None or _about(now).uid != _about(pod).uid:
                    return
                time.sleep(0.1)  # a node that is away keeps it: it is told to end, and not listed

    def kill(self, replica: str) -> None:
        """Its time is over: the node kills it, and it stays as one that has failed. (A pod that is
        deleted would be gone.)"""
        with _told(), self._client() as client:
            pod = _get(client, replica)
            if pod is not None and self._is_ours(pod):
                over = {"spec": {"activeDeadlineSeconds": 1}}
                client.patch(Pod, _name(replica), over, patch_type=PatchType.MERGE)

    def list(self) -> builtins.list[Running]:
        """Without those that are being deleted: by `stop`, or with their node."""
        deadline = time.monotonic() + _LOOK_TIMEOUT_S
        with _told(), self._client(_LOOK_TIMEOUT_S) as client:
            pods = builtins.list(
                client.list(Pod, labels={INSTALLATION: self._settings.installation})
            )
            return [
                _look(client, pod, deadline) for pod in pods if not _about(pod).deletionTimestamp
            ]

    def _pod(self, spec: ReplicaSpec) -> Pod:
        """The host's template with a name, labels, a command and the replica's own settings."""
        known = {file.stem: file for file in self._settings.templates.glob("*.yaml")}
        if spec.host not in known:
            names = ", ".join(sorted(known)) or "none"
            raise OSError(
                f"There is no pod template {spec.host!r} in LORAPLEX_KUBERNETES_TEMPLATES "
                f"({self._settings.templates}), which has: {names}."
            )
        try:
            return self._made_of(yaml.safe_load(known[spec.host].read_text()), spec)
        except (
            yaml.YAMLError,
            LoadResourceError,
            KeyError,
            IndexError,
            TypeError,
            AttributeError,
        ) as wrong:
            raise OSError(f"{known[spec.host]} is no pod template: {wrong!r}") from wrong

    def _made_of(self, made: dict[str, Any], spec: ReplicaSpec) -> Pod:
        metadata = made.setdefault("metadata", {})
        metadata["name"] = _name(spec.id)
        metadata.setdefault("labels", {}).update(
            {INSTALLATION: self._settings.installation, REPLICA: spec.id}
        )
        metadata.setdefault("annotations", {})[LANE] = spec.lane
        made["spec"]["restartPolicy"] = "Never"
        made["spec"]["terminationGracePeriodSeconds"] = GRACE_S
        container = made["spec"]["containers"][0]
        container["command"] = ["python", "-m", "gpu_worker"]
        container["args"] = ["--replica", spec.id, "--lane", spec.lane]
        own = [{"name": name, "value": value} for name, value in spec.settings.items()]
        kept = [each for each in container.get("env", ()) if each["name"] not in spec.settings]
        container["env"] = kept + own
        return cast(Pod, Pod.from_dict(made))

    def _is_ours(self, pod: Pod) -> bool:
        labels = _about(pod).labels or {}
        return bool(labels.get(INSTALLATION) == self._settings.installation)

    def _check_is_ours(self, pod: Pod | None) -> None:
        if pod is None or _about(pod).deletionTimestamp:
            raise OSError("A pod of this name is just being deleted.")
        if not self._is_ours(pod):
            raise OSError(f"{_about(pod).name} is a pod of another installation.")

    def _client(self, timeout_s: float = _CALL_TIMEOUT_S) -> closing[Client]:
        namespace = self._settings.namespace or None
        return closing(Client(namespace=namespace, timeout=httpx2.Timeout(timeout_s)))


def _name(replica: str) -> str:
    return f"loraplex-{replica}"


def _get(client: Client, replica: str) -> Pod | None:
    try:
        return client.get(Pod, _name(replica))
    except ApiError as refused:
        if refused.status.code != _NOT_FOUND:
            raise
        return None


def _about(pod: Pod) -> ObjectMeta:
    return pod.metadata or ObjectMeta()


def _look(client: Client, pod: Pod, deadline: float) -> Running:
    replica = (_about(pod).labels or {})[REPLICA]
    status = pod.status or PodStatus()
    if status.phase in _ENDED:
        return Running(replica, alive=False, log_tail=_tail(client, replica, status, deadline))
    return Running(replica, alive=True, log_tail=_waits_for(status))


def _waits_for(status: PodStatus) -> str:
    """Why it doesn't run: no node has room, its image can't be had; empty: it does, or will."""
    waiting = (each.state.waiting for each in status.containerStatuses or () if each.state)
    stuck = [
        f"{each.reason}: {each.message or ''}"
        for each in waiting
        if each is not None and each.reason in _STUCK
    ]
    unplaced = [
        str(each.message)
        for each in status.conditions or ()
        if each.type == "PodScheduled" and each.status == "False"
    ]
    return "; ".join(stuck + unplaced)


def _tail(client: Client, replica: str, status: PodStatus, deadline: float) -> str:
    """The end of its log; if it has none, or its node takes too long to say it, what the cluster
    says of it (evicted, out of memory)."""
    log = ""
    if time.monotonic() < deadline:
        with suppress(ApiError, httpx2.HTTPError):  # gone with its node
            log = "".join(client.log(_name(replica), tail_lines=_TAIL_LINES))[-_TAIL_SIZE:]
    return log or "; ".join(filter(None, (status.reason, status.message, *_endings(status))))


def _endings(status: PodStatus) -> Iterator[str]:
    for each in status.containerStatuses or ():
        if each.state and each.state.terminated:
            ended = each.state.terminated
            yield f"{ended.reason or 'ended'} with exit code {ended.exitCode}"


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with the cluster becomes an OSError."""
    try:
        yield
    except ApiError as refused:
        raise OSError(f"Kubernetes: {refused.status.message}") from refused
    except ConfigError as nowhere:
        raise OSError(f"No Kubernetes cluster is known here: {nowhere}") from nowhere
    except (httpx2.HTTPError, ValueError) as away:
        raise OSError(f"Kubernetes does not answer: {away!r}") from away
