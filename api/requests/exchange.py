"""A request that is kept with its answer, or asked of another version too, when it has ended.

Only those whose text says all of it: one prompt, one answer, no calls of tools.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from api.keyring import Caller
from api.requests.request import GenerationRequest
from api.requests.resolver import Resolved
from loraplex.entities import Deployment

MOST_CHARACTERS = 2**16  # of prompt and answer together; longer ones are not kept


@dataclass(slots=True)
class Exchange:
    """`kept`: its deployment captures it; `shadow`: the version that is asked, too."""

    request: GenerationRequest
    caller: Caller
    deployment: Deployment
    adapter: str  # that answers; "": the base model
    kept: bool
    shadow: str
    done: "Callable[[Exchange], None]"
    asked: dict[str, Any]
    parts: list[str] = field(default_factory=list)
    size: int = 0

    @property
    def answer(self) -> str:
        return "".join(self.parts)

    def add(self, text: str, *, calls: bool) -> None:
        self.size += MOST_CHARACTERS + 1 if calls else len(text)
        if self.size <= MOST_CHARACTERS:
            self.parts.append(text)

    def end(self) -> None:
        if self.size <= MOST_CHARACTERS:
            self.done(self)


def exchange_of(
    request: GenerationRequest,
    caller: Caller,
    resolved: Resolved,
    adapter: str,
    done: Callable[[Exchange], None],
) -> Exchange | None:
    """None: nobody wants it, or it isn't of that kind. A shared deployment's owner gets nothing of
    what other tenants say."""
    deployment, shadow = resolved.deployment, resolved.shadow
    mine = deployment.tenant_id == caller.tenant
    kept = mine and random.random() < deployment.capture
    copied = shadow is not None and random.random() * 100 < shadow.percent
    if not (kept or copied):
        return None
    asked = _asked(request)
    if asked is None:
        return None
    also = shadow.version if shadow is not None and copied else ""
    size = len(str(asked))
    return Exchange(request, caller, deployment, adapter, kept, also, done, asked, size=size)


def _asked(request: GenerationRequest) -> dict[str, Any] | None:
    several = request.n * len(request.prompts) != 1
    if several or request.max_tokens == 0 or request.echo or request.suffix or request.merge:
        return None
    (prompt,) = request.prompts
    if isinstance(prompt, str):
        return {"prompt": prompt}
    messages: Iterable[Any] = prompt
    found = [dict(message) for message in messages if not isinstance(message, int)]
    return {"messages": found} if found else None
