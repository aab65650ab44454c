"""Instances that wait, stopped, with the container image on their disks: they cost that disk alone,
and start in the time that a machine boots.

One is made like any other, finds no replica in its tags and stops itself. Whose start finds it
stopped until then has it: EC2 says so to one caller. It ends with its replica, and another is made.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from loraplex.ec2_settings import Ec2Pool, Ec2Settings
from scheduler.drivers import ec2_tags as tags
from scheduler.drivers.ec2_fleet import FAILURE_KEPT_S, fleet_of_one, token_of
from scheduler.drivers.ec2_tags import Instance

log = logging.getLogger(__name__)

PREPARED_WITHIN = timedelta(minutes=30)  # one that runs for longer without a replica is broken


class WarmInstances:
    def __init__(self, client: Any, settings: Ec2Settings) -> None:
        self._client = client
        self._settings = settings
        self._ask_from = 0.0

    def start(self, pool: str, named: Mapping[str, str], known: list[Instance]) -> bool:
        """One that waits becomes the replica of these tags. False: none could. Raises
        ClientError."""
        for each in known:
            if each.state == "stopped" and each.waits_in(pool) and self._started(each.id):
                self._client.create_tags(Resources=[each.id], Tags=tags.pairs(named))
                self._end_with_shutdown(each.id, "terminate")
                return True
        return False

    def keep(self, known: list[Instance]) -> None:
        """As many as each pool wants: make and end some."""
        if time.monotonic() < self._ask_from:
            return
        for name, pool in self._settings.pools.items():
            try:
                self._keep(name, pool, known)
            except ClientError as refused:
                self._ask_from = time.monotonic() + FAILURE_KEPT_S
                log.warning("EC2 pool %r has no instance more that waits: %s", name, refused)

    def _keep(self, name: str, pool: Ec2Pool, known: list[Instance]) -> None:
        waiting = [each for each in known if each.waits_in(name)]
        long_ago = datetime.now(UTC) - PREPARED_WITHIN
        broken = [each for each in waiting if each.alive and each.launched_at < long_ago]
        rest = [each for each in waiting if each not in broken]
        ended = [each.id for each in broken + rest[pool.warm :]]
        if ended:
            self._client.terminate_instances(InstanceIds=ended)
        if len(rest) < pool.warm:
            installation = self._settings.installation
            made_before = sorted(each.id for each in known if tags.WARM in each.tags)
            token = token_of(installation, "warm", name, *made_before)
            fleet = fleet_of_one(pool, tags.of_waiting(name, installation))
            answer = self._client.create_fleet(ClientToken=token, **fleet)
            for made in answer.get("Instances", ()):
                self._end_with_shutdown(made["InstanceIds"][0], "stop")

    def _started(self, instance: str) -> bool:
        """By us."""
        try:
            answer = self._client.start_instances(InstanceIds=[instance])
        except ClientError as refused:  # there may be no room where it is
            log.warning("EC2 instance %s, which waited, doesn't start: %s", instance, refused)
            return False
        return bool(answer["StartingInstances"][0]["PreviousState"]["Name"] == "stopped")

    def _end_with_shutdown(self, instance: str, how: str) -> None:
        self._client.modify_instance_attribute(
            InstanceId=instance, Attribute="instanceInitiatedShutdownBehavior", Value=how
        )
