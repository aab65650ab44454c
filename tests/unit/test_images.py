"""The images' lock files have all that pyproject.toml asks for, in the versions that it allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
IMAGES = {
    "api": ["api", "postgres"],
    "scheduler": ["scheduler", "postgres"],
    "gpu_worker": ["worker", "scheduler", "postgres"],
}


def _pins(image: str) -> dict[str, set[str]]:
    text = (ROOT / "infra/docker" / f"{image}.lock").read_text()
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==([^ \\]+)", text, re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    assert text.count("--hash=sha256:") >= len(pins)
    return pins


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_file_has_what_its_image_needs(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for each in IMAGES[image] for line in extras[each])]
    pins = _pins(image)
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if name == "torch":  # from an index of its own
            continue
        told = f"{requirement} is not in {image}.lock: `make lock`"
        assert pins.get(name), told
        assert all(requirement.specifier.contains(version) for version in pins[name]), told


def test_the_same_version_in_all_images() -> None:
    api, scheduler, worker = (_pins(image) for image in IMAGES)
    for one, other in ((api, scheduler), (api, worker), (scheduler, worker)):
        for name in one.keys() & other.keys():
            assert one[name] == other[name], name


def test_torch_is_the_one_that_pyproject_pins() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    (pinned,) = re.findall(r'"(torch==[^"]+)"', project)
    assert pinned in (ROOT / "infra/docker/gpu_worker.Dockerfile").read_text()
