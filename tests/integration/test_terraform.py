"""Terraform: written well, valid by the real AWS provider, its own tests; and what moto can hold is
applied, and used by the EC2 driver."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from loraplex.ec2_settings import Ec2Settings
from scheduler.drivers import ec2 as module
from scheduler.drivers.base import ReplicaSpec, Running
from scheduler.drivers.ec2 import Ec2Driver
from tests.fakes.ec2 import ec2 as ec2_region

FOLDER = Path(__file__).parents[2] / "infra" / "terraform"
PLUGINS = Path("/opt/tf-plugins")  # where the provider lies on machines without its registry
MODULES = sorted(each.parent for each in FOLDER.glob("*/*/main.tf"))

pytestmark = pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform here")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of what the modules read: Terraform writes beside them."""
    shutil.copytree(FOLDER, tmp_path / "infra" / "terraform")
    shutil.copytree(FOLDER.parent / "ec2", tmp_path / "infra" / "ec2")
    return tmp_path / "infra" / "terraform"


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


@pytest.mark.parametrize("source", MODULES, ids=lambda each: each.name)
def test_a_module_is_valid_and_passes_its_tests(source: Path, copy: Path) -> None:
    folder = copy / source.relative_to(FOLDER)
    init(folder)
    terraform(folder, "validate")
    if any(folder.glob("tests/*.tftest.hcl")):
        terraform(folder, "test")


def test_the_driver_starts_by_what_was_applied(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy / "examples" / "gpu_pools"
    with ec2_region(tmp_path) as region:
        for name, value in region.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(module, "_LOOK_EACH_S", 0.0)
        (folder / "here.tf").write_text(
            'provider "aws" {\n  skip_credentials_validation = true\n'
            "  skip_requesting_account_id = true\n  skip_metadata_api_check = true\n}\n"
        )
        init(folder)
        given = {
            "TF_VAR_zones": '["us-east-1a", "us-east-1b"]',
            "TF_VAR_image": "registry.example.com/loraplex/gpu_worker:1",
            "TF_VAR_redis_url": "redis://valkey.internal:6379/0",
            "TF_VAR_ami_id": region.image,
        }
        terraform(folder, "apply", "-auto-approve", "-input=false", **given)
        unchanged = terraform(folder, "plan", "-detailed-exitcode", "-input=false", **given)
        assert "No changes" in unchanged
        settings = json.loads(terraform(folder, "output", "-json", "settings"))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        driver = Ec2Driver(Ec2Settings(), {})
        for host in ("l4", "l4-spot"):
            spec = ReplicaSpec(f"rep-{host}", "org/model#dep-1", host=host)
            region.hang.add(spec.id)
            driver.start(spec)
            assert driver.list() == [Running(spec.id, alive=True)]
            driver.stop(spec.id)
            assert driver.list() == []
        terraform(folder, "destroy", "-auto-approve", "-input=false", **given)
