"""The Docker engine of this machine, if there is one with the replicas' image.

Where images can't be pulled, `infra/docker-engine-here.sh` makes both.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import DockerException, ImageNotFound

from loraplex.docker_settings import DockerSettings


@functools.cache
def missing() -> str:
    """Why containers can't be started here; empty: they can."""
    image = DockerSettings().image
    try:
        client = DockerClient.from_env(timeout=5)
        client.images.get(image)
    except ImageNotFound:
        return f"the Docker engine has no image {image}"
    except DockerException:
        return "no Docker engine answers"
    return ""


@contextmanager
def docker_settings(home: Path, installation: str) -> Iterator[DockerSettings]:
    """Of an installation; its containers are removed in the end."""
    if missing():
        pytest.skip(missing())
    # The host's network: tests have servers on loopback.
    settings = DockerSettings(installation=f"{home}-{installation}", network="host")
    try:
        yield settings
    finally:
        client = DockerClient.from_env()
        ours = {"label": f"loraplex.home={settings.installation}"}
        for container in client.containers.list(all=True, filters=dict(ours)):
            container.remove(force=True)
