"""Terraform: written well, valid by the real AWS provider, its own tests; and what moto can hold is
applied, and used by the EC2 driver."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loraplex.ec2_settings import Ec2Settings
from scheduler.drivers import ec2 as module
from scheduler.drivers.base import ReplicaSpec, Running
from scheduler.drivers.ec2 import Ec2Driver
from tests.fakes.aws import client
from tests.fakes.ec2 import Ec2
from tests.fakes.ec2 import ec2 as ec2_region

FOLDER = Path(__file__).parents[2] / "infra" / "terraform"
PLUGINS = Path("/opt/tf-plugins")  # where the provider lies on machines without its registry
MODULES = sorted(each.parent for each in FOLDER.glob("*/*/main.tf"))

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform here")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of what the modules read: Terraform writes beside them."""
    for name in ("infra/terraform", "infra/ec2", "loraplex/embedded"):
        shutil.copytree(FOLDER.parents[1] / name, tmp_path / name)
    return tmp_path / "infra" / "terraform"


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Ec2]:
    with ec2_region(tmp_path) as region:
        yield region


def terraform(folder: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env=os.environ | {"TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def init(folder: Path) -> None:
    plugins = [f"-plugin-dir={PLUGINS}"] if PLUGINS.is_dir() else []
    terraform(folder, "init", "-backend=false", "-input=false", *plugins)


def test_it_is_formatted() -> None:
    terraform(FOLDER, "fmt", "-check", "-recursive", "-diff")


def test_checkov_finds_nothing() -> None:
    """In an environment of its own: it wants other versions of what we use."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", "checkov==3.3.30", "checkov"]
    options = ["--directory", ".", "--config-file", ".checkov.yaml"]
    found = subprocess.run(
        [*command, *options], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert "Failed checks: 0" in found.stdout, found.stdout + found.stderr


@pytest.mark.parametrize("source", MODULES, ids=lambda each: each.name)
def test_a_module_is_valid_and_passes_its_tests(source: Path, copy: Path, region: Ec2) -> None:
    folder = copy / source.relative_to(FOLDER)
    init(folder)
    terraform(folder, "validate")
    if any(folder.glob("tests/*.tftest.hcl")):
        terraform(folder, "test", **region.environment)


def here(folder: Path) -> None:
    """An example's provider, as moto wants it."""
    (folder / "here.tf").write_text(
        'provider "aws" {\n  skip_credentials_validation = true\n  s3_use_path_style = true\n'
        "  skip_requesting_account_id = true\n  skip_metadata_api_check = true\n}\n"
    )
    init(folder)


def starts_and_stops(region: Ec2, hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver by the settings that are in the environment, on each host of the fleet."""
    monkeypatch.setattr(module, "_LOOK_EACH_S", 0.0)
    for name, value in region.environment.items():
        monkeypatch.setenv(name, value)
    driver = Ec2Driver(Ec2Settings(), {})
    for host in hosts:
        spec = ReplicaSpec(f"rep-{host}", "org/model#dep-1", host=host)
        region.hang.add(spec.id)
        driver.start(spec)
        assert driver.list() == [Running(spec.id, alive=True)]
        driver.stop(spec.id)
        assert driver.list() == []


def test_the_driver_starts_by_what_was_applied(
    copy: Path, region: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy / "examples" / "gpu_pools"
    here(folder)
    given = region.environment | {
        "TF_VAR_zones": '["us-east-1a", "us-east-1b"]',
        "TF_VAR_image": "registry.example.com/loraplex/gpu_worker:1",
        "TF_VAR_redis_url": "redis://valkey.internal:6379/0",
        "TF_VAR_ami_id": region.image,
    }
    terraform(folder, "apply", "-auto-approve", "-input=false", **given)
    unchanged = terraform(folder, "plan", "-detailed-exitcode", "-input=false", **given)
    assert "No changes" in unchanged
    settings = json.loads(terraform(folder, "output", "-json", "settings", **given))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    starts_and_stops(region, ["l4", "l4-spot"], monkeypatch)
    terraform(folder, "destroy", "-auto-approve", "-input=false", **given)


def test_one_machine_is_applied(copy: Path, region: Ec2) -> None:
    folder = copy / "examples" / "dev"
    here(folder)
    given = region.environment | {
        "TF_VAR_source_url": '{"url": "https://git.example.com/loraplex.git", "ref": "v1"}',
        "TF_VAR_zone": "us-east-1a",
        "TF_VAR_ami_id": region.image,
    }
    terraform(folder, "apply", "-auto-approve", "-input=false", **given)
    assert "i-" in terraform(folder, "output", "connect", **given)
    assert region.types() == ["g6.xlarge"]
    terraform(folder, "destroy", "-auto-approve", "-input=false", **given)


def test_a_whole_platform_is_applied_without_a_secret_in_its_state(
    copy: Path, region: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moto doesn't tell back all that it was told, so that a second plan would differ here."""
    folder = copy / "examples" / "prod"
    here(folder)
    zones = client("route53", region.environment)
    zone = zones.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    given = region.environment | {
        "TF_VAR_zones": '["us-east-1a", "us-east-1b"]',
        "TF_VAR_registry": "123456789012.dkr.ecr.us-east-1.amazonaws.com/loraplex",
        "TF_VAR_release": "1.0",
        "TF_VAR_domain": "llm.example.com",
        "TF_VAR_zone_id": zone.rpartition("/")[2],
        "TF_VAR_allowed_cidrs": '["203.0.113.0/24"]',
        "TF_VAR_emails": '["ops@example.com"]',
        "TF_VAR_protect": "false",
        "TF_VAR_gpu_ami_id": region.image,
        "TF_VAR_valkey_ami_id": region.image,
    }
    terraform(folder, "apply", "-auto-approve", "-input=false", **given)
    state = (folder / "terraform.tfstate").read_text()
    parameters = client("ssm", region.environment)
    for name in ("database-url", "redis-url", "secret-key", "api-key", "replicas", "valkey-users"):
        asked = parameters.get_parameter(Name=f"/loraplex/{name}", WithDecryption=True)
        assert asked["Parameter"]["Value"] not in state
    for name, value in json.loads(
        terraform(folder, "output", "-json", "settings", **given)
    ).items():
        monkeypatch.setenv(name, value)
    starts_and_stops(region, ["l4", "l4-spot"], monkeypatch)
    terraform(folder, "destroy", "-auto-approve", "-input=false", **given)
