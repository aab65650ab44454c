"""What is the Kubernetes driver's alone: templates, what a cluster says when it can't or won't."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from loraplex.kubernetes_settings import KubernetesSettings
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.kubernetes import KubernetesDriver
from tests.e2e.running import until
from tests.fakes.kubernetes import Cluster, kubernetes

TEMPLATE = """
metadata: {labels: {app: loraplex}}
spec:
  nodeSelector: {accelerator: l4}
  restartPolicy: Always
  containers:
    - name: replica
      image: loraplex/gpu_worker:cuda
      command: [sleep]
      args: [forever]
      env: [{name: LORAPLEX_LEASE_S, value: "7"}, {name: LORAPLEX_LOG_LEVEL, value: debug}]
      resources: {limits: {nvidia.com/gpu: 1}}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with kubernetes(tmp_path) as cluster:
        monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
        (tmp_path / "l4.yaml").write_text(TEMPLATE)
        yield cluster


@pytest.fixture
def driver(cluster: Cluster) -> KubernetesDriver:
    return KubernetesDriver(KubernetesSettings(templates=cluster.folder))


@pytest.fixture
def spec() -> ReplicaSpec:
    settings = {"LORAPLEX_LEASE_S": "9"}
    return ReplicaSpec(f"rep-{secrets.token_hex(4)}", "org/model#dep-1", "l4", settings=settings)


def test_a_pod_is_its_template_with_a_name_a_command_and_settings(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec
) -> None:
    cluster.no_room = True
    driver.start(spec)
    pod = cluster.pods[f"loraplex-{spec.id}"].shown()
    assert pod["metadata"]["labels"] == {
        "app": "loraplex",
        "loraplex/installation": "loraplex",
        "loraplex/replica": spec.id,
    }
    assert pod["metadata"]["annotations"] == {"loraplex/lane": spec.lane}
    assert pod["spec"]["restartPolicy"] == "Never", "the scaler starts another"
    assert pod["spec"]["nodeSelector"] == {"accelerator": "l4"}
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-m", "gpu_worker"]
    assert container["args"] == ["--replica", spec.id, "--lane", spec.lane]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment == {"LORAPLEX_LEASE_S": "9", "LORAPLEX_LOG_LEVEL": "debug"}


def test_why_a_pod_waits_is_told(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec
) -> None:
    cluster.no_room = True
    driver.start(spec)
    (waiting,) = driver.list()
    assert waiting.alive and "Insufficient nvidia.com/gpu" in waiting.log_tail
    driver.stop(spec.id)
    assert driver.list() == [] and cluster.pods == {}


def test_one_that_is_killed_stays_as_ended(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec
) -> None:
    driver.start(spec)
    driver.kill(spec.id)
    until(driver.list, lambda found: [each.alive for each in found] == [False])
    driver.kill("rep-unknown")


def test_a_pod_of_another_installation_is_left_alone(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec
) -> None:
    cluster.no_room = True
    driver.start(spec)
    other = KubernetesDriver(KubernetesSettings(templates=cluster.folder, installation="other"))
    with pytest.raises(OSError, match="another installation"):
        other.start(spec)
    other.stop(spec.id)
    other.kill(spec.id)
    assert [each.replica for each in driver.list()] == [spec.id]


def test_a_name_that_is_being_deleted_is_free_soon(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec
) -> None:
    driver.start(spec)
    cluster.node_answers.clear()
    cluster.delete(f"loraplex-{spec.id}")  # somebody drains the node
    assert driver.list() == []
    with pytest.raises(OSError, match="just being deleted"):
        driver.start(spec)
    cluster.node_answers.set()
    until(lambda: cluster.pods, lambda pods: not pods)
    cluster.no_room = True
    driver.start(spec)
    assert [each.replica for each in driver.list()] == [spec.id]


@pytest.mark.parametrize(
    ("code", "message"), [(403, "pods is forbidden: quota exceeded"), (500, "etcd is away")]
)
def test_what_the_cluster_refuses_is_told(
    cluster: Cluster, driver: KubernetesDriver, spec: ReplicaSpec, code: int, message: str
) -> None:
    for call in (lambda: driver.start(spec), driver.list, lambda: driver.stop(spec.id)):
        cluster.refusals = [(code, message)]
        with pytest.raises(OSError, match=message):
            call()


def test_a_template_that_is_missing_or_none_is_told(
    cluster: Cluster, driver: KubernetesDriver
) -> None:
    with pytest.raises(OSError, match=r"no pod template 'a100'.*which has: l4"):
        driver.start(ReplicaSpec("rep-1", "org/model#dep-1", "a100"))
    for wrong in ("spec: {containers: []}", "[", "text", "spec: {containers: {}}"):
        (cluster.folder / "l4.yaml").write_text(wrong)
        with pytest.raises(OSError, match="is no pod template"):
            driver.start(ReplicaSpec("rep-1", "org/model#dep-1", "l4"))
    assert cluster.pods == {}


def test_a_cluster_that_is_away_or_unknown_is_told(
    cluster: Cluster, driver: KubernetesDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(cluster.environment["KUBECONFIG"])
    config = json.loads(file.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
    file.write_text(json.dumps(config))
    with pytest.raises(OSError, match="does not answer"):
        driver.list()
    monkeypatch.setenv("KUBECONFIG", str(cluster.folder / "none"))
    with pytest.raises(OSError, match="No Kubernetes cluster is known here"):
        driver.list()
