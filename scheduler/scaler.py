"""The scaler process: lead, look at everything, act; wake up early when something happens.

Any number may run: one leads, the others stand by. A look is: observe (`observe.py`), decide
(`reconcile.py`, pure), do (`perform.py`, fenced by the leader's epoch).
"""

import logging
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from loraplex.broker.connection import Unavailable, check, connect
from loraplex.broker.interface import Deposed
from loraplex.broker.scaler import ScalerBroker
from loraplex.database import connect as connect_database
from loraplex.garbage import collect_less
from loraplex.metrics.served import serving_metrics
from loraplex.settings import ScalerSettings
from scheduler import actions as do
from scheduler.charts import Charts
from scheduler.drivers.choose import driver_for
from scheduler.event_relay import EventRelay
from scheduler.fleet import fleet_of
from scheduler.housekeeping import Housekeeping
from scheduler.judge import ASK_AGAIN_S, Limits
from scheduler.memory import Memory
from scheduler.metrics import ScalerMetrics
from scheduler.observe import observe
from scheduler.perform import Performer
from scheduler.reconcile import Rules, reconcile
from scheduler.rows import SqlRows
from scheduler.tasks.adapter_imports import SILENT_S, import_adapter, resume_imports
from scheduler.tasks.budgets import check_budgets
from scheduler.tasks.compare import compare_laws
from scheduler.tasks.deliveries import deliver
from scheduler.tasks.evaluations import score_evaluation
from scheduler.tasks.imports import prepare_deployment, store_models
from scheduler.tasks.replicas import kill_replica, start_replica, stop_replica
from scheduler.tasks.storage import clean_storage
from scheduler.tasks.training import run_training
from scheduler.trainings import TrainingRules
from scheduler.usage import UsageCollector
from scheduler.webhooks import Webhooks

log = logging.getLogger(__name__)

_STORAGE_EACH_S = 3600.0

SHORTEST_PAUSE_S = 0.05  # from look to look: the first wake-up of a burst is one, the rest the next
SETTLE_S = 3.0  # after Redis, or the database, was away: the living tell it first


class CeleryTasks:
    """Asks the task workers; nothing is done in the scaler itself. What was asked for a moment ago
    is not asked for again: looks come faster than tasks are done."""

    def __init__(self) -> None:
        self._stops: dict[str, float] = {}  # when each was asked for

    def prepare(self, deployment: str) -> None:
        prepare_deployment.delay(deployment)

    def start(self, replica: str) -> None:
        start_replica.delay(replica)

    def train(self, job: str) -> None:
        run_training.delay(job)

    def stop(self, replica: str) -> None:
        now = time.monotonic()
        self._stops = {name: at for name, at in self._stops.items() if now - at < ASK_AGAIN_S}
        if replica not in self._stops:
            stop_replica.delay(replica)
            self._stops[replica] = now


class Scaler:
    def __init__(self, settings: ScalerSettings) -> None:
        self._settings = settings
        redis = connect(settings.redis_url)
        check(redis)
        self._broker = ScalerBroker(redis, f"scaler-{secrets.token_hex(4)}")
        self._driver = driver_for(settings)
        database = connect_database(settings.database)
        self._rows = SqlRows(database)
        self._performer = Performer(self._rows, self._broker, CeleryTasks())
        self._memory = Memory(self._broker)
        self._rules = Rules(
            fleet=fleet_of(settings),
            limits=Limits(settings.start_timeout_s, settings.drain_timeout_s),
            cold_start_s=settings.cold_start_s,
            trainings=TrainingRules(settings.training_host, settings.training_jobs),
        )
        self._webhooks = Webhooks(database, deliver.delay)
        self._relay = EventRelay(database, self._broker, settings.tasks_redis, self._webhooks)
        self._housekeeping = Housekeeping(self._broker, self._rows, settings.retention_s)
        self._usage = UsageCollector(database, self._broker)
        self._charts = Charts(self._rows, settings.prices)
        self._metrics = ScalerMetrics(database)
        self._served = serving_metrics(self._metrics.registry, settings, redis, "scaler")
        self._look_from = 0.0
        self._routines_from: dict[str, float] = {}  # by task
        self.stop = threading.Event()

    def run(self) -> None:
        """Until `stop` is set. Redis away: wait with jitter, the replicas go on meanwhile."""
        with self._served:
            self._run()

    def _run(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                if self._settings.alive_file is not None:
                    self._settings.alive_file.touch()
                self._turn()
                self._broker.wait_for_wake(self._settings.tick_s)
                self.stop.wait(max(0.0, began + SHORTEST_PAUSE_S - time.monotonic()))
                self._broker.forget_wakes()
            except Unavailable as away:
                log.warning("Redis is away, trying again: %s", away)
                self._look_from = time.monotonic() + SETTLE_S
                self._pause()
            except Deposed as deposed:
                log.warning("%s", deposed)
                self._pause()
            except Exception:  # the outermost loop: the database is away, say
                log.exception("this look failed, trying again")
                self._look_from = time.monotonic() + SETTLE_S
                self._pause()
        if self._broker.epoch:
            self._broker.resign()

    def _pause(self) -> None:
        self._broker.epoch = 0
        self._metrics.stand_by()
        self.stop.wait(random.uniform(0.2, 1.5))

    def _turn(self) -> None:
        if self._lead() and time.monotonic() >= self._look_from:
            self._look()

    def _lead(self) -> bool:
        """True: this scaler leads. What it does is done in the name of its epoch."""
        before = self._broker.epoch
        least = self._rows.latest_epoch() if not before else 0
        epoch = self._broker.lead(self._settings.leader_lease_s, least) or 0
        if epoch == before:
            return epoch > 0
        name = self._broker.scaler_id
        log.info("%s %s", name, f"leads, epoch {epoch}" if epoch else "stands by")
        self._broker.epoch = self._rows.epoch = epoch
        self._housekeeping.blind()
        self._metrics.stand_by()
        if epoch:
            self._memory.load()
            self._charts.load()
            world = observe(self._rows, self._broker, self._driver)
            self._broker.fence(list(world.lanes))
        return epoch > 0

    def _look(self) -> None:
        began = time.monotonic()
        world = observe(self._rows, self._broker, self._driver)
        look = reconcile(world, self._memory.known, self._rules)
        for name, error in look.failed.items():
            log.error("%s is held as it is", name, exc_info=error)
        for name, actions in _by_deployment(look.actions):
            self._perform(name, actions)
        self._memory.learn(look, self._rules)
        self._metrics.looked(world, look, time.monotonic() - began)
        lanes = list(world.lanes)
        self._aside("housekeeping", lambda: self._housekeeping.run(lanes))
        self._aside("usage", lambda: self._usage.run(world.lanes))
        self._aside("charts", lambda: self._charts.look(world))
        self._aside("asked", self._pass_on_asked)
        self._aside("events", self._relay.publish)
        self._aside("webhooks", self._webhooks.ask)
        self._aside("routines", self._ask_for_routines)

    def _ask_for_routines(self) -> None:
        for task, each_s in (
            (check_budgets, self._settings.budget_check_s),
            (clean_storage, _STORAGE_EACH_S),
            (resume_imports, SILENT_S / 2),
            *([(store_models, _STORAGE_EACH_S)] if self._settings.model_store else []),
        ):
            if time.monotonic() >= self._routines_from.get(task.name, 0.0):
                self._routines_from[task.name] = time.monotonic() + each_s
                task.delay()

    def _pass_on_asked(self) -> None:
        for deployment in self._broker.asked_comparisons():
            compare_laws.delay(deployment)
        for import_id in self._broker.asked_imports():
            import_adapter.delay(import_id)
        for replica in self._broker.asked_kills():
            kill_replica.delay(replica)
        for evaluation in self._broker.asked_scorings():
            score_evaluation.delay(evaluation)

    def _aside(self, what: str, job: Callable[[], None]) -> None:
        """What fails beside the look must not end this scaler's leadership."""
        try:
            job()
        except (*Unavailable, Deposed):
            raise
        except Exception:
            log.exception("%s: failed, the next look tries again", what)

    def _perform(self, name: str, actions: list[do.Action]) -> None:
        """What can't be done for one deployment must not hide those behind it."""
        try:
            self._performer.perform(self._while_leading(actions))
        except Deposed:
            raise
        except Unavailable:
            raise
        except Exception:
            log.exception("%s: this look failed", name)

    def _while_leading(self, actions: Iterable[do.Action]) -> Iterator[do.Action]:
        for action in actions:
            if self._broker.lead(self._settings.leader_lease_s) != self._broker.epoch:
                raise Deposed(self._broker.epoch)
            yield action


def _by_deployment(actions: Iterable[do.Action]) -> Iterator[tuple[str, list[do.Action]]]:
    """In the order of their first actions."""
    groups: dict[str, list[do.Action]] = {}
    for action in actions:
        groups.setdefault(do.of(action), []).append(action)
    yield from groups.items()


def main() -> None:
    from loraplex.logs import configure

    settings = ScalerSettings()
    configure("scaler", settings.log_level, settings.log_format)
    scaler = Scaler(settings)
    collect_less()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: scaler.stop.set())
    scaler.run()


if __name__ == "__main__":
    main()
