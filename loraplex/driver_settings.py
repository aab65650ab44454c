"""What each driver needs to know, by its name in LORAPLEX_DRIVER."""

from pydantic_settings import BaseSettings

from loraplex.docker_settings import DockerSettings
from loraplex.ec2_settings import Ec2Settings
from loraplex.kubernetes_settings import KubernetesSettings

BY_DRIVER: dict[str, type[BaseSettings]] = {
    "docker": DockerSettings,
    "ec2": Ec2Settings,
    "kubernetes": KubernetesSettings,
}


def check(driver: str) -> None:
    """Raises ValidationError, SettingsError."""
    if driver in BY_DRIVER:
        BY_DRIVER[driver]()
