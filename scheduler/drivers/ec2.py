"""Replicas as EC2 instances, one each: an instant fleet of one, by a launch template.

What this driver knows is in the instances' tags, so that any process can list them. A start is one
call over all types and zones of a pool, with a client token that is made of the replica's id: EC2
does a repeated one once. An instance runs `infra/ec2/boot.sh` and ends with its replica.
"""

import builtins
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from loraplex.ec2_settings import Ec2Settings
from loraplex.usage import ANY
from scheduler.drivers import ec2_tags as tags
from scheduler.drivers.base import ReplicaSpec, Running
from scheduler.drivers.ec2_fleet import fleet_of_one, token_of
from scheduler.drivers.ec2_tags import Instance
from scheduler.drivers.ec2_warm import WarmInstances

_LOOK_EACH_S = 3.0  # EC2 bounds how often it may be asked
_CLIENT = Config(
    connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 4}
)


class Ec2Driver:
    def __init__(self, settings: Ec2Settings, prices: Mapping[str, float]) -> None:
        """`prices`: of a replica-hour, by pool."""
        self._settings = settings
        self._prices = prices
        self._client: Any = boto3.client("ec2", config=_CLIENT)  # safe for threads
        self._warm = WarmInstances(self._client, settings)
        self._logs: dict[str, str] = {}  # of ended instances
        self._looked: tuple[float, list[Running]] | None = None
        self._lock = threading.Lock()

    def start(self, spec: ReplicaSpec) -> None:
        """Raises OSError: no type has room in any zone, a guard holds, EC2 doesn't answer."""
        pool = self._settings.pools.get(spec.host)
        if pool is None:
            known = ", ".join(self._settings.pools) or "none"
            raise OSError(f"There is no EC2 pool {spec.host!r}; LORAPLEX_EC2_POOLS has: {known}.")
        with _told():
            known_here = self._instances()
            of_replica = [each for each in known_here if each.replica == spec.id]
            if any(not each.stopped for each in of_replica):
                return  # it runs, or has ended: a replica runs once
            self._guard(known_here, spec.host)
            named = tags.of(spec, self._settings.installation)
            if self._warm.start(spec.host, named, known_here):
                self._looked = None
                return
            token = token_of(self._settings.installation, spec.id, len(of_replica))
            answer = self._client.create_fleet(ClientToken=token, **fleet_of_one(pool, named))
        self._looked = None
        if not any(each["InstanceIds"] for each in answer.get("Instances", ())):
            raise OSError(_refusal(spec.host, answer.get("Errors", ())))

    def stop(self, replica: str) -> None:
        with _told():
            found = [i for i in self._instances() if i.replica == replica and not i.stopped]
            if found:
                ids = [each.id for each in found]
                # First: an instance that has ended must be forgotten, too.
                self._client.create_tags(
                    Resources=ids, Tags=[{"Key": tags.STOPPED, "Value": str(int(time.time()))}]
                )
                self._client.terminate_instances(InstanceIds=ids)
        self._looked = None

    def kill(self, replica: str) -> None:
        with _told():
            ids = [i.id for i in self._instances() if i.replica == replica and i.alive]
            if ids:
                self._client.terminate_instances(InstanceIds=ids)
        self._looked = None

    def list(self) -> builtins.list[Running]:
        """Of a few seconds ago, unless this process has changed something since."""
        with self._lock:
            if self._looked is not None and time.monotonic() - self._looked[0] < _LOOK_EACH_S:
                return self._looked[1]
            with _told():
                instances = self._instances()
                self._warm.keep(instances)
                found = builtins.list(self._look(instances))
            self._looked = (time.monotonic(), found)
            return found

    def _look(self, instances: Iterable[Instance]) -> Iterator[Running]:
        by_replica: dict[str, builtins.list[Instance]] = {}
        for each in instances:
            if each.replica and not each.stopped:
                by_replica.setdefault(each.replica, []).append(each)
        for replica, instances in by_replica.items():
            alive = sorted(
                (each for each in instances if each.alive),
                key=lambda each: (each.launched_at, each.id),
            )
            if alive:
                self._end([each.id for each in alive[1:]])
                yield Running(replica, alive=True)
            else:
                yield Running(replica, alive=False, log_tail=self._log(instances[0].id))

    def _end(self, twins: builtins.list[str]) -> None:
        """Two starts of one replica can only happen where EC2 has not told of the first one yet,
        longer ago than it remembers a token's failure. The older one stays."""
        if twins:
            self._client.terminate_instances(InstanceIds=twins)

    def _instances(self) -> builtins.list[Instance]:
        """Of this installation, also those that ended in the last hour, as EC2 has it."""
        mine = {"Name": f"tag:{tags.INSTALLATION}", "Values": [self._settings.installation]}
        pages = self._client.get_paginator("describe_instances").paginate(Filters=[mine])
        return [
            Instance.found(each)
            for page in pages
            for reservation in page["Reservations"]
            for each in reservation["Instances"]
        ]

    def _guard(self, known: builtins.list[Instance], pool: str) -> None:
        alive = [each for each in known if each.alive]
        most = self._settings.max_instances
        if len(alive) >= most:
            raise OSError(f"{len(alive)} EC2 instances run: LORAPLEX_EC2_MAX_INSTANCES is {most}.")
        if self._settings.max_cost_h is None:
            return
        cost = sum(self._price(each.tags[tags.POOL]) for each in alive) + self._price(pool)
        if cost > self._settings.max_cost_h:
            bound = f"LORAPLEX_EC2_MAX_COST_H is {self._settings.max_cost_h:g}"
            raise OSError(f"With another EC2 instance of {pool!r} {cost:g} an hour: {bound}.")

    def _price(self, pool: str) -> float:
        return self._prices.get(pool, self._prices.get(ANY, 0.0))

    def _log(self, instance: str) -> str:
        if instance not in self._logs:
            answer = self._client.get_console_output(InstanceId=instance)
            self._logs[instance] = str(answer.get("Output", ""))[-2000:]
        return self._logs[instance]


def _refusal(pool: str, errors: Any) -> str:
    said = dict.fromkeys(f"{each['ErrorCode']}: {each['ErrorMessage']}" for each in errors)
    return f"EC2 pool {pool!r} has no room. {' '.join(said) or 'No reason was given.'}"


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with EC2 becomes an OSError that says what to do."""
    try:
        yield
    except ClientError as refused:
        error = refused.response["Error"]
        hint = {
            "RequestLimitExceeded": " It is tried again.",
            "UnauthorizedOperation": " See infra/terraform's role of the task workers.",
        }.get(error["Code"], "")
        raise OSError(f"EC2: {error['Code']}: {error['Message']}{hint}") from refused
    except BotoCoreError as away:
        raise OSError(f"EC2 does not answer: {away}") from away
