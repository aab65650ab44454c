"""Every Redis key, stream, channel and group name, in one place.

Keys of one lane share a hash tag (`{…}`), so that a script that touches several of them works on
Redis Cluster. Channels and leases of platform-wide processes stand alone.
"""

from dataclasses import dataclass

GROUP = "replicas"
WAKE_CHANNEL = "lpx:wake"
LEADER = "lpx:{scaler}:leader"
EPOCH = "lpx:{scaler}:epoch"  # raised with each new leader
LEARNED = "lpx:{scaler}:learned"  # hash: deployment → what the law remembers of it
DECISIONS = "lpx:{scaler}:decisions"  # hash: deployment → the latest decision, for its users
COMPARE = "lpx:{scaler}:compare"  # list: deployments whose laws are to be compared
IMPORTS = "lpx:{scaler}:imports"  # list: adapters' imports that a task worker is to run
KILLS = "lpx:{scaler}:kills"  # list: replicas that somebody wants to see die (development)
SCORINGS = "lpx:{scaler}:scorings"  # list: the same of evaluations that are to be scored
COMPARISONS = "lpx:{scaler}:comparison:"  # string of a deployment: how that went
PUBLISHED = "lpx:{scaler}:published"  # id of the latest event that is on the bus
TARGETS = "lpx:targets"  # hash: process → where it serves its metrics
REPLY_PREFIX = "lpx:reply:"
APIS = "lpx:apis"  # sorted set: API process → when it was last heard of, in Redis' ms
CELERY_PREFIX = "lpx:celery:"
BUS_PREFIX = "lpx:bus:"  # of kombu's keys


def reply_channel(api_id: str) -> str:
    """Where one API process hears of its requests' tokens."""
    return REPLY_PREFIX + api_id


def limits_prefix(tenant: str) -> str:
    """Of what the limiter knows of a tenant. `held`: sorted set of reservations by their deadlines;
    `reserved`: hash of them; `scope:…`: hashes, one of all that it uses and one a deployment."""
    return f"lpx:{{limits:{tenant}}}:"


@dataclass(frozen=True, slots=True)
class Lane:
    """The Redis side of one deployment: its jobs keyed by base model, and what belongs to them."""

    base_model: str
    deployment_id: str

    @property
    def name(self) -> str:
        return f"{self.base_model}#{self.deployment_id}"

    @classmethod
    def parse(cls, name: str) -> "Lane":
        base_model, _, deployment_id = name.rpartition("#")
        if not base_model or not deployment_id:
            raise ValueError(f"not a lane name: {name!r}")
        return cls(base_model, deployment_id)

    def _key(self, kind: str) -> str:
        return f"lpx:{{{self.name}}}:{kind}"

    @property
    def jobs(self) -> str:
        """Stream of jobs; an entry is deleted when its request has ended."""
        return self._key("jobs")

    @property
    def journal(self) -> str:
        """Stream of engine steps: every token that was ever published, trimmed by age."""
        return self._key("journal")

    @property
    def gate(self) -> str:
        """Hash: may jobs enter? See `scripts/enqueue.lua`."""
        return self._key("gate")

    @property
    def reports(self) -> str:
        """Hash: incarnation → latest ReplicaReport."""
        return self._key("reports")

    @property
    def tiers_prefix(self) -> str:
        """String of an incarnation: its AdapterTiers; gone soon after it."""
        return self._key("tiers:")

    @property
    def batches(self) -> str:
        """Hash: incarnation → what its next step runs, where that isn't all it has."""
        return self._key("batches")

    @property
    def deaths(self) -> str:
        """Hash: job → replicas that died while it ran alone."""
        return self._key("deaths")

    @property
    def dead_letters(self) -> str:
        """Stream of jobs that were given up because replicas died of them."""
        return self._key("dead")

    @property
    def usage(self) -> str:
        """Stream: what each answer took, until the leading scaler has stored it."""
        return self._key("usage")

    @property
    def logs(self) -> str:
        """Stream of the latest lines that its replicas have logged."""
        return self._key("logs")

    @property
    def traffic(self) -> str:
        """Stream of Traffic: when requests came and what they took, of the latest ones."""
        return self._key("traffic")

    @property
    def request_prefix(self) -> str:
        """Hash of a request: how it is shown, its stream entries, who waits for it (`w:…`)."""
        return self._key("request:")

    @property
    def lease_prefix(self) -> str:
        return self._key("lease:")

    @property
    def control_prefix(self) -> str:
        return self._key("control:")
