"""What the leader remembers of deployments, and what of it is kept in Redis for the next one."""

import msgspec

from loraplex.broker.scaler import ScalerBroker
from loraplex.explanation import Explanation
from scheduler import law
from scheduler.explain import explain
from scheduler.reconcile import Decided, Look, Rules
from scheduler.starts import NOTHING, Counted, Remembered

_KEEP_EVERY_S = 10.0  # of what changes all the time


class Kept(msgspec.Struct, array_like=True, frozen=True, tag="kept.1"):
    """Of one deployment, in Redis."""

    law: law.Memory | None
    starts: tuple[float, ...]
    used_at: float
    first_tokens: tuple[float, ...] = ()
    split_told: frozenset[str] = frozenset()
    counted: Counted = NOTHING


def kept(known: Remembered) -> Kept:
    return Kept(**{name: getattr(known, name) for name in Kept.__struct_fields__})


def remembered(before: Kept) -> Remembered:
    return Remembered(**msgspec.structs.asdict(before))


_decode = msgspec.msgpack.Decoder(Kept).decode
_encode = msgspec.msgpack.Encoder().encode


class Memory:
    def __init__(self, broker: ScalerBroker) -> None:
        self._broker = broker
        self.known: dict[str, Remembered] = {}
        self._kept: dict[str, bytes] = {}
        self._told: dict[str, Explanation] = {}
        self._kept_at = 0.0

    def load(self) -> None:
        """As the leader before left it. What another release wrote is forgotten."""
        self.known = {}
        self._kept = self._broker.learned()
        for name, raw in self._kept.items():
            try:
                self.known[name] = remembered(_decode(raw))
            except msgspec.DecodeError:
                continue

    def learn(self, look: Look, rules: Rules) -> None:
        """Take over what a look has learned; now and then, keep it."""
        gone = set(self.known) - set(look.memory)
        for name in gone:
            self._broker.forget(name)
            self._kept.pop(name, None)
            self._told.pop(name, None)
        started = any(
            look.memory[name].starts != self.known[name].starts
            or look.memory[name].split_told != self.known[name].split_told
            for name in look.memory
            if name in self.known
        )
        self.known = look.memory
        changed: dict[str, bytes] = {}
        if started or look.now - self._kept_at > _KEEP_EVERY_S:
            self._kept_at = look.now
            changed = self._changed(look)
        told = {
            name: explain(decided, look.now, rules.law)
            for name, decided in look.decided.items()
            if not _same(self._told.get(name), decided, look.now)
        }
        self._told |= told
        if changed or told:
            self._broker.keep(changed, {name: _encode(each) for name, each in told.items()})

    def _changed(self, look: Look) -> dict[str, bytes]:
        """Those that had work since, or whose starts are known better."""
        changed: dict[str, bytes] = {}
        for name, known in look.memory.items():
            busy = isinstance(known.law, law.Memory) and known.used_at >= self._kept_at - 60.0
            if name in self._kept and not busy:
                continue
            raw = _encode(kept(known))
            if self._kept.get(name) != raw:
                changed[name] = self._kept[name] = raw
        return changed


def _same(before: Explanation | None, now: Decided, at: float) -> bool:
    """For its reader: rates that drift are no news for some seconds, nor is rest."""
    if before is None:
        return False
    seen = now.seen
    shown = (now.decision.replicas, now.allowed, seen.ready + seen.starting, now.starting_since)
    if shown != (before.wanted, before.allowed, before.has, before.starting_since):
        return False
    at_rest = not any((seen.waiting, seen.running, seen.ready, seen.starting))
    return at_rest or at - before.at < _KEEP_EVERY_S
