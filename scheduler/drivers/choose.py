"""The driver that the settings name; as a command: stop all replicas (the platform goes down)."""

import sys

from loraplex.docker_settings import DockerSettings
from loraplex.ec2_settings import Ec2Settings
from loraplex.kubernetes_settings import KubernetesSettings
from loraplex.settings import ScalerSettings
from loraplex.unknown_settings import checked
from scheduler.drivers.base import Driver
from scheduler.drivers.process import ProcessDriver


def driver_for(settings: ScalerSettings) -> Driver:
    """Their client libraries take some tenths of a second: only what is used is loaded."""
    if settings.driver == "docker":
        from scheduler.drivers.docker import DockerDriver

        return DockerDriver(settings, DockerSettings())
    if settings.driver == "ec2":
        from scheduler.drivers.ec2 import Ec2Driver

        return Ec2Driver(Ec2Settings(), settings.prices)
    if settings.driver == "kubernetes":
        from scheduler.drivers.kubernetes import KubernetesDriver

        return KubernetesDriver(KubernetesSettings())
    return ProcessDriver(settings)


def stop_all(driver: Driver) -> None:
    for running in driver.list():
        driver.stop(running.replica)


if __name__ == "__main__":
    with checked():
        try:
            stop_all(driver_for(ScalerSettings()))
        except OSError as failed:
            sys.exit(str(failed))
