"""Adapters in slots: nobody starves, nobody is loaded twice, failures are told, bounds hold."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.engine.lora.residency import Residency
from gpu_worker.engine.request import AdapterRefused

QUANTUM_S = 1.0


class Disk:
    """Adapters that are their own name; counts the loads."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def load(self, adapter: str) -> str:
        self.gate.wait()
        self.loads.append(adapter)
        if adapter.startswith("bad"):
            raise AdapterRefused("bad weights")
        return adapter


class Device:
    """What has been placed and not dropped."""

    def __init__(self) -> None:
        self.placed: list[str] = []

    def place(self, packed: str) -> str:
        self.placed.append(packed)
        return packed


def make(disk: Disk, slots: int, slab: int = 100, device: Device | None = None) -> Residency[str]:
    """An adapter's size is the length of its name."""
    device = device or Device()
    return Residency(
        *(disk.load, len, device.place, device.placed.remove),
        slots=slots,
        slot_bytes=1,
        slab_bytes=slab,
        quantum_s=QUANTUM_S,
    )


def load(residency: Residency[str], *adapters: str) -> dict[str, AdapterRefused]:
    for adapter in adapters:
        residency.want(adapter)
    refused: dict[str, AdapterRefused] = {}
    while residency.loading:
        residency.wait(5)
        refused |= residency.poll()
    return refused


def test_requests_for_one_adapter_load_it_once() -> None:
    disk = Disk()
    disk.gate.clear()
    residency = make(disk, 2)
    for _ in range(3):
        residency.want("a")
    assert not residency.acquire("a", 0)
    disk.gate.set()
    load(residency)
    assert residency.acquire("a", 0) and residency.acquire("a", 0)
    assert (disk.loads, residency.resident, residency["a"]) == (["a"], ["a"], "a")


def test_a_failed_load_is_told_and_may_be_tried_again() -> None:
    disk = Disk()
    residency = make(disk, 2)
    refused = load(residency, "bad")
    assert "bad weights" in str(refused["bad"])
    residency.unwant("bad")
    assert set(load(residency, "bad")) == {"bad"}
    assert disk.loads == ["bad", "bad"]


def test_an_idle_adapter_leaves_for_another_and_a_held_one_stays() -> None:
    residency = make(Disk(), 2)
    load(residency, "a", "b", "c")
    assert residency.acquire("a", 0) and residency.acquire("b", 0)
    assert not residency.acquire("c", 0.1)
    residency.release("b")
    assert residency.acquire("c", 0.2)
    assert sorted(residency.resident) == ["a", "c"]


def test_a_pinned_adapter_keeps_its_slot_while_another_is_idle() -> None:
    residency = make(Disk(), 2)
    residency.pin("a")
    load(residency, "b", "c", "d")
    for name in "abcd":  # each leaves its slot idle
        assert residency.acquire(name, 0)
        residency.release(name)
    assert sorted(residency.resident) == ["a", "d"]
    residency.unpin("a")
    assert residency.acquire("d", 1) and residency.acquire("b", 1)
    assert sorted(residency.resident) == ["b", "d"]


def test_who_waits_for_a_quantum_gets_a_turn() -> None:
    residency = make(Disk(), 1)
    load(residency, "a", "b")
    assert residency.acquire("a", 0)
    assert not residency.acquire("b", 0.5)
    assert residency.overdue(1.0) == set()
    assert residency.overdue(1.6) == set(), "a drains first"
    assert not residency.acquire("a", 1.7), "a draining adapter admits no more"
    assert residency.overdue(2.7) == {"a"}, "then its sequences step back"
    residency.release("a")
    assert not residency.acquire("a", 2.8), "b has waited longer"
    assert residency.acquire("b", 2.8)


def test_the_slab_is_bounded_and_keeps_what_is_wanted() -> None:
    disk = Disk()
    residency = make(disk, 1, slab=2)
    load(residency, "a")
    residency.unwant("a")
    load(residency, "b", "c")
    load(residency, "a")
    assert disk.loads == ["a", "b", "c", "a"]


def test_an_adapter_that_no_replica_of_this_size_can_hold_is_refused_each_time() -> None:
    residency = make(Disk(), 2)
    for _ in range(2):
        assert "needs 3 adapter slots" in str(load(residency, "abc")["abc"])
        residency.unwant("abc")


def test_a_large_adapter_waits_for_several_slots_and_small_ones_do_not_pass_it_for_ever() -> None:
    residency = make(Disk(), 3)
    load(residency, "a", "b", "c", "ddd")
    assert residency.acquire("a", 0) and residency.acquire("b", 0)
    assert not residency.acquire("ddd", 0.1)
    assert not residency.acquire("c", 0.2), "it would take what ddd waits for"
    assert residency.overdue(1.6) == set() and residency.overdue(2.7) == {"a", "b"}
    residency.release("a")
    residency.release("b")
    assert residency.acquire("ddd", 2.8)


ADAPTERS = st.sampled_from(["a", "b", "c", "dd", "ee", "fff"])


@settings(max_examples=100, deadline=None)
@given(
    slots=st.integers(3, 5),
    work=st.lists(st.tuples(ADAPTERS, st.integers(1, 6)), min_size=1, max_size=25),
)
def test_everyone_is_served_in_the_end(slots: int, work: list[tuple[str, int]]) -> None:
    """A loop like the schedule's: whoever may, runs; the overdue step back and queue again."""
    device = Device()
    residency = make(Disk(), slots, slab=4, device=device)
    waiting = [[adapter, left] for adapter, left in work]
    running: list[list[object]] = []
    load(residency, *(adapter for adapter, _ in work))
    for tick in range(2000):
        now = tick * 0.25
        if residency.loading:
            residency.wait(5)
        residency.poll()
        overdue = residency.overdue(now)
        for job in [j for j in running if j[0] in overdue]:
            running.remove(job)
            residency.release(str(job[0]))
            waiting.insert(0, job)  # type: ignore[arg-type]
        for job in [j for j in waiting if residency.acquire(str(j[0]), now)]:
            waiting.remove(job)
            running.append(job)  # type: ignore[arg-type]
        assert {j[0] for j in running} <= set(residency.resident)
        assert sum(map(len, residency.resident)) <= slots
        assert sorted(device.placed) == sorted(residency.resident)
        for job in list(running):
            job[1] -= 1  # type: ignore[operator]
            if not job[1]:
                running.remove(job)
                residency.release(str(job[0]))
                residency.unwant(str(job[0]))
        if not running and not waiting:
            return
    pytest.fail(f"still waiting: {waiting}")


def test_it_tells_where_each_adapter_is_and_what_failed_last_time() -> None:
    disk = Disk()
    residency = make(disk, slots=3)
    disk.gate.clear()
    residency.want("aaa")
    residency.want("bad")
    assert set(residency.tiers().loading) == {"aaa", "bad"}
    disk.gate.set()
    load(residency, "b")
    assert residency.acquire("aaa", 0.0)
    told = residency.tiers()
    assert (told.slots, told.memory, told.loading) == (["aaa"], ["b"], [])
    assert list(told.failed) == ["bad"] and "bad weights" in told.failed["bad"]
    residency._load = lambda adapter: adapter
    load(residency, "bad")
    assert "bad" in residency.tiers().memory and not residency.tiers().failed
