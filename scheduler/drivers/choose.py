"""The driver that the settings name; as a command: stop all replicas (the platform goes down)."""

from loraplex.settings import ScalerSettings
from scheduler.drivers.base import Driver
from scheduler.drivers.process import ProcessDriver


def driver_for(settings: ScalerSettings) -> Driver:
    """One line a driver: `ec2` has its place here."""
    if settings.driver == "docker":
        from scheduler.drivers.docker import DockerDriver  # its client library takes 0.2 s

        return DockerDriver(settings)
    return ProcessDriver(settings)


def stop_all(driver: Driver) -> None:
    for running in driver.list():
        driver.stop(running.replica)


if __name__ == "__main__":
    stop_all(driver_for(ScalerSettings()))
