"""What crosses processes through Redis: declared once, msgpack arrays, versioned by tag.

A field may be added at the end with a default; anything else is a new tag (`job.2`), read beside
the old one for a release.
"""

from typing import Literal

import msgspec

PROTOCOL = 1  # raised with every new tag that an older release can't read

RequestId = str
ApiId = str
Digest = str

Finish = Literal["stop", "length", "cancelled", "expired", "error"]
Phase = Literal["loading", "ready", "draining", "failed", "exited"]


class Sampling(msgspec.Struct, array_like=True, frozen=True, tag="sampling.1"):
    """How to choose tokens. The seed is drawn by the API, never by a replica."""

    max_tokens: int
    seed: int
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_ids: list[int] = []
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    grammar: tuple[str, str] | None = None  # kind (json_schema, regex, lark) and source
    logprobs: int | None = None  # how many alternatives to report; None: nothing
    prompt_logprobs: int | None = None  # the same for the prompt's tokens
    pooling: Literal["mean", "last"] | None = None  # an embedding of the prompt is wanted


class Account(msgspec.Struct, array_like=True, frozen=True):
    """What a job is charged to, beside its tenant."""

    key: str = ""  # the API key's id
    adapter: str = ""  # as its tenant names it
    prompt: bool = True  # its prompt counts: of several answers to one, the first one's does
    reservation: str = ""  # what the limiter holds for it


class Job(msgspec.Struct, array_like=True, frozen=True, tag="job.1"):
    """One generation request, ready to run. Written by the API, read by a replica."""

    request: RequestId
    reply_to: ApiId  # which API process waits
    tenant: str
    adapter: Digest | None  # None: the base model
    prompt: list[int]  # token ids
    sampling: Sampling
    deadline: float  # Unix seconds
    account: Account = Account()
    background: bool = False  # it gives way to others
    trace: str = ""  # W3C's traceparent of the span that it belongs to; "": it isn't traced


Surface = Literal["chat", "completion", "lorax", "embedding", "response"]


class Shown(msgspec.Struct, array_like=True, frozen=True, tag="shown.1"):
    """How a request's answers are shown: what any API process needs to go on with its stream."""

    request: RequestId
    tenant: str
    surface: Surface
    model: str  # as the client named it
    created: int  # Unix seconds
    deadline: float
    answers: int
    n: int  # answers to a prompt
    best: int  # of them, as many are returned
    prompt_tokens: int
    stop: list[str] = []
    include_usage: bool = False
    streamed: bool = False
    logprobs: bool = False
    silent: bool = False  # the one token of each answer isn't wanted (`max_tokens` 0)
    prefixes: list[str] = []  # text before each prompt's answers (`echo`)
    scored: list[list[int]] = []  # the prompts' token ids, where their log-probabilities are shown
    body: str = ""  # fingerprint of the client's request, for idempotency
    grace_s: float = 0.0  # how long the client may be away
    tools: str = ""  # family of the calls that are looked for in its text
    adapter: str = ""  # that answers, as its tenant names it; "": the base model


class Logprobs(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Of one token: its own log-probability, and the likeliest token ids with theirs."""

    chosen: float
    top: list[tuple[int, float]]


class TokenEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """New tokens of one request. `position` is the index of the first of them in the output."""

    request: RequestId
    position: int
    tokens: list[int]
    finish: Finish | None = None
    error: str | None = None  # a sentence for the client, with finish "error"
    error_code: str | None = None  # which API error it becomes
    logprobs: list[Logprobs] | None = None  # of each token, where asked
    prompt_logprobs: list[Logprobs] | None = None  # with the first token; from prompt[1] on
    cached: int = 0  # prompt tokens that need not be computed; with the first token
    embedding: bytes | None = None  # of the prompt, with the first token; float32, little-endian

    def since(self, position: int) -> "TokenEvent":
        """Without the tokens before `position`."""
        known = max(0, position - self.position)
        return msgspec.structs.replace(
            self,
            position=position,
            tokens=self.tokens[known:],
            logprobs=None if self.logprobs is None else self.logprobs[known:],
            prompt_logprobs=None if known else self.prompt_logprobs,
        )

    def each_token(self) -> "list[TokenEvent]":
        """The same as events of one token each; its end is with the last one."""
        if len(self.tokens) < 2:
            return [self]
        last = len(self.tokens) - 1
        parts = [
            msgspec.structs.replace(
                self,
                position=self.position + number,
                tokens=[token],
                logprobs=None if self.logprobs is None else [self.logprobs[number]],
                finish=self.finish if number == last else None,
            )
            for number, token in enumerate(self.tokens)
        ]
        first_only = {"prompt_logprobs": None, "cached": 0, "embedding": None}
        return parts[:1] + [msgspec.structs.replace(p, **first_only) for p in parts[1:]]

    def followed_by(self, event: "TokenEvent") -> "TokenEvent":
        """Both as one, where `event` begins at this one's end."""
        logprobs = (self.logprobs or []) + (event.logprobs or [])
        return msgspec.structs.replace(
            event,
            position=self.position,
            tokens=self.tokens + event.tokens,
            logprobs=logprobs or None,
            prompt_logprobs=self.prompt_logprobs,
            cached=self.cached,
            embedding=self.embedding,
        )


class Step(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="step.1"):
    """All events of one engine step. Journal entry, and message to an API process."""

    incarnation: str
    events: list[TokenEvent]
    entry: str = ""  # its id in the journal, in a message: `commit.lua` writes it over `NO_ENTRY`


NO_ENTRY = " " * 26  # the last bytes of an encoded step, and as many as the longest stream id has


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag="cancel.1"):
    """To the replica that runs the request: stop it and free its slot.

    `wanted`: its client has all that it wants, which is so many tokens (it came to a stop string).
    """

    request: RequestId
    wanted: int | None = None


class Usage(msgspec.Struct, array_like=True, frozen=True, tag="usage.1"):
    """What one answer took. Written once, by the script that takes its job off the lane."""

    answer: RequestId
    tenant: str
    account: Account
    arrived_at: float  # Unix seconds
    prompt: int = 0  # tokens; those of a prompt that another answer's record has don't count
    cached: int = 0  # of them, need not be computed
    output: int = 0
    queue_s: float = 0.0  # until a replica took it
    first_token_s: float | None = None  # since it arrived
    duration_s: float = 0.0
    status: Finish = "stop"
    error: str = ""  # code


class ColdStart(msgspec.Struct, array_like=True, frozen=True):
    """Where the time of a replica's start went, in seconds, one after the other."""

    spawn_s: float  # asked for → its process begins; 0 where nobody said when
    import_s: float  # → what it needs is imported, and Redis was heard
    load_s: float  # → the model is ready
    first_token_s: float = 0.0  # → first token, counted from its first job where none waited


class Vitals(msgspec.Struct, array_like=True, frozen=True):
    """How busy the machine under a replica is: its GPU, or the CPU where it has none."""

    device: str = ""  # "cuda" or "cpu"; "": not looked yet
    utilization: float = 0.0  # of the GPU, or of all cores by this replica; 0 to 1
    memory: int = 0  # bytes: of the GPU in use, or this replica's own
    memory_total: int = 0


class ReplicaReport(msgspec.Struct, array_like=True, frozen=True, tag="replica.1"):
    """What a replica says of itself, renewed with every step and at least each second."""

    replica: str
    phase: Phase
    at: float  # Unix seconds
    running: int = 0
    capacity: int = 0
    tokens_per_s: float = 0.0
    requests_done: int = 0
    steps: int = 0
    mixed_steps: int = 0  # steps that ran two or more adapters (or base) together
    most_adapters_in_step: int = 0  # the base counts as one
    adapters: list[str] = []  # digests resident
    error: str | None = None  # why it failed
    permanent: bool = False  # starting again can't help
    ready_after_s: float = 0.0  # process start → ready
    cold_start: ColdStart | None = None
    # Tokens since its process began.
    generated: int = 0
    prompt: int = 0  # of prompts that have come to a first token
    cached: int = 0  # of them, need not be computed
    kv_used: float = 0.0  # share of the KV cache that requests hold
    vitals: Vitals = Vitals()


class AdapterTiers(msgspec.Struct, array_like=True, frozen=True, tag="adapters.1"):
    """Where a replica has which adapters, by digest; written anew when that changes."""

    replica: str
    slots: list[str]  # ready to run
    memory: list[str]  # beside the slots
    loading: list[str]
    failed: dict[str, str]  # that it could not load at the last try, and why


class Traffic(msgspec.Struct, array_like=True, frozen=True, tag="traffic.1"):
    """Requests that ended at a replica within about a second: for the laws that are compared with
    ours. No prompts."""

    requests: list[tuple[float, int, int, float]]
    """(arrived, Unix seconds; prompt tokens; output tokens; seconds in a slot)"""


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_job = msgspec.msgpack.Decoder(Job).decode
decode_shown = msgspec.msgpack.Decoder(Shown).decode
decode_step = msgspec.msgpack.Decoder(Step).decode
decode_cancel = msgspec.msgpack.Decoder(Cancel).decode
decode_traffic = msgspec.msgpack.Decoder(Traffic).decode
decode_usage = msgspec.msgpack.Decoder(Usage).decode
decode_tiers = msgspec.msgpack.Decoder(AdapterTiers).decode
decode_report = msgspec.msgpack.Decoder(ReplicaReport).decode
