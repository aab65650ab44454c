"""Requests run to their ends, for who has no loop of his own: an engine without the platform."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator

from gpu_worker.engine.request import Output, Request


class ToTheEnd(ABC):
    """What an engine offers beyond its steps. `_kept`: outputs of a step that nobody has had yet,
    for others than `generate` or `stream` asked for; the next step gives them first."""

    def __init__(self) -> None:
        self._kept: list[Output] = []

    @abstractmethod
    def add(self, request: Request) -> None: ...

    @abstractmethod
    def cancel(self, request_id: str) -> Output | None: ...

    @abstractmethod
    def step(self, only: str | None = None) -> list[Output]: ...

    @abstractmethod
    def has(self, request_id: str) -> bool:
        """It has not ended."""

    def generate(self, requests: Iterable[Request]) -> dict[str, list[int]]:
        """Run requests to their ends: output tokens by request id.

        Raises EngineError, with the request's id, for the first that fails, and gives up the
        others.
        """
        produced: dict[str, list[int]] = {}
        try:
            for request in requests:
                self.add(request)
                produced[request.id] = list(request.produced)
            while self._goes_on(produced):
                for output in self._outputs_of(produced):
                    if output.error is not None:
                        raise type(output.error)(f"request {output.request!r}: {output.error}")
                    produced[output.request] += output.tokens
        finally:
            for name in produced:
                self.cancel(name)
        return produced

    def stream(self, request: Request) -> Iterator[Output]:
        """Run one request, output by output; leaving the loop cancels it.

        A request that fails gives a last output with its error.
        """
        self.add(request)
        try:
            while self._goes_on([request.id]):
                yield from self._outputs_of([request.id])
        finally:
            self.cancel(request.id)

    def _goes_on(self, ids: Collection[str]) -> bool:
        return any(map(self.has, ids)) or any(output.request in ids for output in self._kept)

    def _outputs_of(self, ids: Collection[str]) -> list[Output]:
        """A step's; those of other requests are kept for who asks for them."""
        outputs = self.step()
        self._kept = [output for output in outputs if output.request not in ids]
        return [output for output in outputs if output.request in ids]
