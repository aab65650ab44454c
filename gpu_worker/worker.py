"""The loop of a replica: take jobs, step, commit the step. One thread owns engine and jobs."""

import logging
import threading
import time
from dataclasses import dataclass

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import EngineError, Grammar, Output, Request, Sampling, TokenLogprobs
from gpu_worker.metering import Meter
from gpu_worker.metrics import ReplicaMetrics
from gpu_worker.probation import MOST_DEATHS_ALONE, Probation
from gpu_worker.split import Split
from gpu_worker.traces import JobTraces
from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import Orders, TakenJob
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.messages import AdapterTiers, Job, Logprobs, Phase, ReplicaReport, TokenEvent, encode
from loraplex.messages import Sampling as WireSampling

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.5
LOOK_FOR_LOST_JOBS_S = 1.0
TIERS_KEPT_S = 5.0
HUNG_AFTER_S = 60.0


def _sampling(wire: WireSampling) -> Sampling:
    """The engine's form of what the API sent."""
    fields = {name: getattr(wire, name) for name in wire.__struct_fields__}
    grammar = fields.pop("grammar")
    stop_ids = tuple(fields.pop("stop_ids"))
    return Sampling(**fields, stop_ids=stop_ids, grammar=Grammar(*grammar) if grammar else None)


def _logprobs(known: list[TokenLogprobs] | None) -> list[Logprobs] | None:
    return None if known is None else [Logprobs(each.chosen, each.top) for each in known]


@dataclass
class Counters:
    """Of this incarnation; what is counted of the process is `metrics.Tally`'s."""

    most_adapters_in_step: int = 0
    tokens_per_s: float = 0.0  # moving average over busy steps


class Worker:
    """One incarnation's life on its lane: until drained, stopped or fenced."""

    def __init__(
        self,
        engine: Engine,
        broker: WorkerBroker,
        replica: str,
        stop: threading.Event,
        *,
        max_deliveries: int,
        split: Split,
        metrics: ReplicaMetrics,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._replica = replica
        self._max_deliveries = max_deliveries
        self._split = split
        self._jobs: dict[str, TakenJob] = {}
        self._produced: dict[str, list[int]] = {}  # by others, of suspects that wait for their turn
        self._probation = Probation()
        self._counters = Counters()
        self._draining = False
        self.served = False  # this incarnation has reached Redis
        self._waiting = 1  # jobs on the lane when last heard: look at once
        self._next_look = 0.0
        self._told: AdapterTiers | None = None
        self._progress = time.monotonic()
        self._stop = stop  # set by SIGTERM: finish what runs, then leave
        self._ended = threading.Event()
        self._metrics = metrics
        self._traces = JobTraces(replica, broker.lane.base_model)
        self._meter = Meter(metrics.tally, self._traces)
        engine.adapters.on_loaded = self._adapter_loaded

    def run(self) -> None:
        """Serve until drained or stopped. Whatever it raises, its jobs are dropped by then."""
        self._broker.register(self._report())
        self.served = True
        keeper = threading.Thread(target=self._keep_lease, daemon=True)
        keeper.start()
        try:
            while True:
                self._progress = time.monotonic()
                if self._draining and not self._jobs:
                    break
                self._turn()
        except BaseException:  # fenced, or Redis is away: the jobs are somebody else's now
            for request in self._jobs:
                self._engine.cancel(request)
            raise
        finally:
            self._ended.set()
            keeper.join()
            self._keep_record()
        self._broker.leave(self._report("exited"))

    def _turn(self) -> None:
        result = StepResult()
        if self._should_take():
            taken = self._broker.take(max(0, self._engine.room))
            self._split.looked(len(taken))
            self._admit(taken, result)
        suspect = self._probation.start()
        if suspect is not None:
            self._run(suspect, self._produced.pop(suspect.job.request), result)
        alone = self._probation.running
        only = alone.job.request if alone else None
        if self._probation.pausing and not self._engine.preparing:
            only = ""  # nothing new: the end of the step before
        started = time.monotonic()
        outputs = self._engine.step(only)
        for output in outputs:
            self._record(output, result)
        if outputs:
            self._count(sum(len(o.tokens) for o in outputs), time.monotonic() - started)
            if any(output.tokens for output in outputs):
                self._split.first_token()
        batch = self._probation.announcement(quiet=self._engine.quiet)
        self._obey(self._broker.commit(result, self._report(), batch))
        if not self._jobs and not self._waiting and not self._draining:
            self._broker.wait(IDLE_WAIT_S)
            self._waiting = 1

    def _should_take(self) -> bool:
        if self._draining or self._engine.room <= 0 or not self._probation.idle:
            return False
        now = time.monotonic()
        if self._waiting or now >= self._next_look:  # jobs of the dead are found by looking
            self._next_look = now + LOOK_FOR_LOST_JOBS_S
            return True
        return False

    def _admit(self, taken: list[TakenJob], result: StepResult) -> None:
        resumed = self._broker.journalled([t for t in taken if t.reclaimed])
        for job in taken:
            request = job.job.request
            if request in self._jobs:  # twice on the lane: it runs once
                if job.entry != self._jobs[request].entry:
                    result.ended.append((job.entry, b""))
                continue
            self._jobs[request] = job
            earlier = resumed.get(request)
            self._meter.begin(job, earlier)
            produced = earlier.tokens if earlier else []
            if time.time() > job.job.deadline:
                self._emit(TokenEvent(request, len(produced), [], "expired"), result)
            elif job.deaths >= MOST_DEATHS_ALONE or job.deliveries > self._max_deliveries:
                self._give_up(job, len(produced), result)
            elif Probation.suspects(job):
                self._produced[request] = produced
                self._probation.add(job)
            else:
                self._run(job, produced, result)

    def _give_up(self, taken: TakenJob, position: int, result: StepResult) -> None:
        alone = f", {taken.deaths} of them with nothing else to run" if taken.deaths else ""
        error = f"{taken.deliveries - 1} replicas died while they ran this request{alone}."
        result.dead.append((taken.entry, error))
        event = TokenEvent(taken.job.request, position, [], "error", error, "replica_died")
        self._emit(event, result)

    def _run(self, taken: TakenJob, produced: list[int], result: StepResult) -> None:
        refusal = self._add(taken.job, produced)
        if refusal is not None:
            self._emit(refusal, result)

    def _add(self, job: Job, produced: list[int]) -> TokenEvent | None:
        done = len(produced)
        sampling = _sampling(job.sampling)
        whose = (job.adapter, produced, job.tenant, job.background)
        request = Request(job.request, job.prompt, sampling, *whose)
        try:
            self._engine.add(request)
        except EngineError as refused:
            return TokenEvent(job.request, done, [], "error", str(refused), refused.code)
        if done:
            log.info("resumed request=%s position=%d", job.request, done)
        return None

    def _adapter_loaded(self, adapter: str, began: float, ended: float, can_run: bool) -> None:
        self._metrics.tally.adapter_loaded(began, ended, can_run)
        self._traces.adapter_loaded(adapter, began, ended)

    def _record(self, output: Output, result: StepResult) -> None:
        error, code = None, None
        if output.admitted:
            self._meter.admitted(output.request, output.admitted)
        if output.error is not None:
            error, code = str(output.error), output.error.code
        event = TokenEvent(
            *(output.request, output.position, output.tokens, output.finish),
            *(error, code, _logprobs(output.logprobs), _logprobs(output.prompt_logprobs)),
            *(output.cached, output.embedding),
        )
        self._emit(event, result)

    def _emit(self, event: TokenEvent, result: StepResult, wanted: int | None = None) -> None:
        """`wanted`: see `loraplex.messages.Cancel`."""
        taken = self._jobs[event.request]
        self._meter.produced(event)
        usage = encode(self._meter.end(event, wanted)) if event.finish else b""
        result.add(taken.job.reply_to, event, taken.entry, usage)
        self._probation.produced(event.request, len(event.tokens))
        if event.finish:
            self._probation.ended(event.request)
            self._produced.pop(event.request, None)
            del self._jobs[event.request]

    def _obey(self, orders: Orders) -> None:
        self._waiting = orders.waiting
        self._draining = orders.drain or self._stop.is_set()
        cancelled = StepResult()
        now = time.time()
        ends = {r: None for r, t in self._jobs.items() if now > t.job.deadline}
        ends |= {c.request: c.wanted for c in orders.cancels}
        for request, wanted in ends.items():
            output = self._engine.cancel(request)
            if request not in self._jobs:
                continue
            # One that waits for its probation is not in the engine.
            position = output.position if output else len(self._produced.get(request, ()))
            expired = now > self._jobs[request].job.deadline
            finish = "expired" if expired else "cancelled"
            self._emit(TokenEvent(request, position, [], finish), cancelled, wanted)
        if cancelled.ended:
            self._obey(self._broker.commit(cancelled, self._report()))

    def _count(self, tokens: int, seconds: float) -> None:
        counters, stats = self._counters, self._engine.stats
        self._metrics.tally.step(seconds, stats.sequences, len(stats.adapters))
        rate = tokens / max(seconds, 1e-6)
        before = counters.tokens_per_s or rate
        counters.tokens_per_s = 0.9 * before + 0.1 * rate
        if len(stats.adapters) > max(1, counters.most_adapters_in_step):
            names = ", ".join(a[:12] if a else "base" for a in stats.adapters)
            log.info("mixed batch: %d requests over [%s] in one step", stats.sequences, names)
        counters.most_adapters_in_step = max(counters.most_adapters_in_step, len(stats.adapters))

    def _report(self, phase: Phase | None = None) -> ReplicaReport:
        counters, tally = self._counters, self._metrics.tally
        held, blocks = self._engine.kv_blocks
        return ReplicaReport(
            replica=self._replica,
            phase=phase or ("draining" if self._draining else "ready"),
            at=time.time(),
            running=len(self._jobs),
            capacity=self._engine.slots,
            tokens_per_s=round(counters.tokens_per_s, 2),
            requests_done=tally.requests,
            steps=tally.steps,
            mixed_steps=tally.mixed_steps,
            most_adapters_in_step=counters.most_adapters_in_step,
            adapters=self._engine.adapters.resident,
            ready_after_s=round(self._split.ready_after_s, 3),
            cold_start=self._split.cold_start,
            generated=tally.generated,
            prompt=tally.prompt,
            cached=tally.cached,
            kv_used=round(held / blocks, 4),
            vitals=self._metrics.vitals,
        )

    def _keep_lease(self) -> None:
        """Renew during a long step or load; a loop that hangs for a minute loses its lease. The
        record of what has ended is kept here, too: no step should wait for it."""
        while not self._ended.wait(min(1.0, self._broker.lease_s / 3)):
            self._keep_record()
            self._tell_tiers()
            if time.monotonic() - self._progress < HUNG_AFTER_S:
                try:
                    self._broker.renew()
                except Unavailable as down:
                    log.warning("lease not renewed: %s", down)
            self._metrics.look()

    def _tell_tiers(self) -> None:
        now = self._engine.adapters.tiers()
        told = AdapterTiers(self._replica, now.slots, now.memory, now.loading, now.failed)
        changed = told != self._told
        try:
            known = self._broker.tell_tiers(encode(told) if changed else None, TIERS_KEPT_S)
            self._told = told if known else None
        except Unavailable as away:
            self._told = None
            log.info("where adapters are is not told: %s", away)

    def _keep_record(self) -> None:
        ended = self._meter.pop_ended()
        if ended:
            try:
                self._broker.record(ended)
            except Unavailable as away:
                log.warning("%d requests are not in the recorded traffic: %s", len(ended), away)
