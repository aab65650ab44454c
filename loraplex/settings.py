"""All settings, one class per process. Read once at start from `LORAPLEX_*`, then passed down."""

import base64
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loraplex.limits import StorageLimit

_KEY_BYTES = 32
CLUSTER = "+cluster://"  # redis+cluster://, rediss+cluster://: any node of one


class Settings(BaseSettings):
    """What every process needs: where state lies and how to reach Redis and the database."""

    model_config = SettingsConfigDict(env_prefix="LORAPLEX_", extra="ignore")

    home: Path = Field(Path("~/.loraplex"), description="Folder that holds all state.")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey, 7 or newer, noeviction. A cluster: `redis+cluster://` or "
        "`rediss+cluster://` and any of its nodes.",
    )
    database_url: str = Field("", description="SQLAlchemy URL. Empty: SQLite in the home folder.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["line", "json"] = Field(
        "line", description="Logs as lines for people, or as JSON for programs."
    )
    retention_s: float = Field(
        600.0, ge=10, description="An answer can be read again for so long after its end."
    )
    allow_local_models: bool = Field(
        True,
        description="Whether the tenant that runs the platform may name base models, and adapters "
        "to import, by their paths on this machine.",
    )

    prices: dict[str, NonNegativeFloat] = Field(
        {},
        description='What a replica-hour costs, by host of the fleet, as JSON: `{"gpu-1": 2.5, '
        '"*": 0.1}`; `*` is any other. In one currency; unset: nothing costs anything.',
    )

    callback_hosts: list[str] = Field(
        [],
        description="Hosts that webhooks may reach though they are private, as JSON: "
        '`["hooks.internal"]`; also without TLS. Public ones need no entry.',
    )

    max_upload_bytes: int = Field(
        256 * 2**20, gt=0, description="Largest upload of an adapter, in bytes."
    )
    tenant_storage_gib: float | None = Field(
        None,
        gt=0,
        description="How much the adapters and files of a tenant may take, in GiB. Unset: what the "
        "disk holds.",
    )
    storage_kept_s: float = Field(
        86400.0,
        ge=3600,
        description="How long the files of a deleted adapter, and uploads that nobody completed, "
        "are kept, in seconds: longer than any request takes.",
    )
    adapter_store: str = Field(
        "",
        description="Where adapters are kept for many machines: `s3://bucket/adapters`, or "
        "`file:///…`, which all of them mount. Unset: in the home folder.",
    )
    model_store: str = Field(
        "",
        description="Where base models are kept for many machines: `s3://bucket/models`, or "
        "`file:///…`. A model that a deployment names is stored there, and fetched by each machine "
        "that runs it. Unset: in the home folder alone.",
    )
    models_gib: float | None = Field(
        None,
        gt=0,
        description="What base models may take of this machine's disk, in GiB; those that no "
        "deployment needs go, the least lately used first. Unset: no bound.",
    )
    capture_days: float = Field(
        30.0, gt=0, description="How long captured exchanges are kept, in days."
    )
    metrics: bool = Field(
        True, description="Whether each process serves Prometheus metrics on a port of its own."
    )
    metrics_host: str = Field("127.0.0.1", description="Address to serve metrics on.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of a process' metrics. 0: any free one; Prometheus finds it by "
        "`/api/v1/metrics/targets`.",
    )
    otlp_endpoint: str = Field(
        "",
        description="Where traces are sent by OTLP over HTTP, such as `http://localhost:4318`. "
        "Empty: no request is traced.",
    )
    trace_sample: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of requests that is traced; of those that come with a `traceparent`, it "
        "says so.",
    )
    s3_sources: list[str] = Field(
        [],
        description="Where in S3 adapters may be imported from, with the server's credentials, as "
        'JSON: `["s3://adapters/{tenant}"]`; `{tenant}` is who asks. Empty: nowhere.',
    )
    secret_key: str = Field(
        "",
        repr=False,
        description="Locks what users give us in trust (a hub's token while it is needed): 32 "
        "bytes as URL-safe base64. Empty: a file of the home folder, made at first use.",
    )

    @field_validator("model_store", "adapter_store")
    @classmethod
    def _is_store(cls, url: str) -> str:
        if url and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[^?#]*)?|file:///[^?#]+", url):
            raise ValueError("s3://BUCKET/PREFIX, or file:///FOLDER")
        return url

    @field_validator("secret_key")
    @classmethod
    def _is_key(cls, key: str) -> str:
        try:
            right = not key or len(base64.urlsafe_b64decode(key)) == _KEY_BYTES
        except ValueError:
            right = False
        if not right:
            raise ValueError("32 bytes as URL-safe base64; empty: a file of the home folder")
        return key

    @property
    def storage_limit(self) -> StorageLimit:
        return StorageLimit(self.tenant_storage_gib, self.storage_kept_s)

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'loraplex.db'}"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def merged_dir(self) -> Path:
        """Which adapters of the store are merged ones."""
        return self.home / "merged"

    @property
    def training_dir(self) -> Path:
        return self.home / "training"

    @property
    def files_dir(self) -> Path:
        return self.home / "files"

    @property
    def secret_key_file(self) -> Path:
        return self.home / "secret-key"

    @property
    def uploads_dir(self) -> Path:
        return self.home / "uploads"

    @property
    def findings_dir(self) -> Path:
        """What replicas found out about models, so that the next one needn't."""
        return self.home / "findings"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"


class ApiSettings(Settings):
    """The HTTP process."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless changed.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    max_backlog: int = Field(
        256, ge=1, description="Queued jobs per deployment before requests get 429."
    )
    request_timeout_s: float = Field(
        600.0, gt=0, description="Deadline of a request, from its arrival, in seconds."
    )
    key_cache_s: float = Field(
        5.0,
        gt=0,
        description="An API key that was revoked at another API process may work for so long.",
    )
    max_body_bytes: int = Field(16 * 2**20, gt=0, description="Largest request body, in bytes.")
    redact: str = Field(
        "",
        description="A Python function, `package.module:function`, that each captured exchange "
        "goes through before it is stored (loraplex/redaction.py).",
    )
    capture_most: int = Field(
        10_000, ge=1, description="Captured exchanges that are kept of a deployment: the newest."
    )
    max_merges: int = Field(
        100, ge=0, description="Different merged adapters that a tenant may ask for in a day."
    )
    dev: bool = Field(
        False,
        description="Whether owners of deployments may kill replicas, to see what becomes of "
        "their requests. `loraplex up` switches it on.",
    )
    session_days: float = Field(
        7.0, gt=0, description="How long a login at the console is valid, in days."
    )
    grace_s: float = Field(
        10.0,
        ge=0,
        le=600,
        description="A client that is gone may come back for so long before its request is "
        "stopped. Clients of OpenAI's SDKs never do: theirs is stopped at once, but with an "
        "Idempotency-Key. Header: x-grace-seconds.",
    )
    send_timeout_s: float = Field(
        60.0, gt=0, description="A client that reads nothing for so long is taken for gone."
    )
    heartbeat_s: float = Field(
        10.0, gt=0, description="Seconds between comment lines on an SSE stream."
    )


class EmbeddedSettings(ApiSettings):
    """`loraplex up`."""

    valkey_port: int = Field(
        0, ge=0, le=65535, description="Port of the embedded Valkey; 0 takes a free one."
    )
    valkey_max_mib: int = Field(
        1024, ge=16, description="Its memory, in MiB; when it is used up new requests get 503."
    )
    warm_parent: bool = Field(
        True,
        description="A process that has imported what replicas need (400 MB) and forks them: a "
        "cold start is some seconds faster.",
    )


class ScalerSettings(Settings):
    """The scaler and its Celery task worker."""

    tick_s: float = Field(1.0, gt=0, description="Longest pause between two looks at every lane.")
    leader_lease_s: float = Field(
        5.0, gt=0, description="A standby scaler takes over after this long."
    )
    start_timeout_s: float = Field(
        300.0, gt=0, description="A replica that is not ready after this long has failed."
    )
    drain_timeout_s: float = Field(
        660.0, gt=0, description="A draining replica is killed after this long."
    )
    driver: Literal["process", "docker", "ec2", "kubernetes"] = Field(
        "process",
        description="What starts replicas: processes beside the task worker, containers, EC2 "
        "instances, or pods. Who may talk to a Docker engine is root on its machine.",
    )
    replica_redis_url: str = Field(
        "",
        description="What containers of replicas connect to, where it isn't `LORAPLEX_REDIS_URL`: "
        "as a user that may do less (compose.yaml has one), or by another address.",
    )
    fleet: dict[str, PositiveInt] = Field(
        {},
        description='Replicas that each host may run, as JSON: {"local": 4}. Unset: this machine, '
        "one for each GPU, or as many as its memory holds.",
    )
    replica_memory_gib: float = Field(
        2.0,
        gt=0,
        description="What a replica on a CPU takes, in GiB, to know how many there is room for.",
    )
    training_jobs: int = Field(
        1, ge=0, description="Fine-tuning jobs that run at once; others wait. 0: none is run."
    )
    training_host: str = Field(
        "local",
        description="The host of the fleet that task workers run on: fine-tuning takes places "
        "there that replicas don't want. One that the fleet doesn't have: it runs beside it.",
    )
    training_yield_s: float = Field(
        30.0,
        gt=0,
        description="A job whose place is wanted writes a checkpoint within so long, or is killed "
        "and goes on from its last one.",
    )
    budget_check_s: float = Field(
        60.0, gt=0, description="Seconds between two looks at what tenants have spent."
    )
    tasks_redis_url: str = Field(
        "",
        description="Redis of tasks (Celery) and the event bus, which no cluster can be. Empty: "
        "`LORAPLEX_REDIS_URL`.",
    )
    alive_file: Path | None = Field(
        None,
        description="A file that is touched every few seconds while the process works (a task "
        "worker: and its queue answers): what the health checks of containers look at.",
    )
    cold_start_s: float = Field(
        30.0, gt=0, description="What a cold start is believed to take before one was measured."
    )

    @property
    def tasks_redis(self) -> str:
        """Raises ValueError when that is a cluster."""
        url = self.tasks_redis_url or self.redis_url
        if CLUSTER in url:
            raise ValueError(
                "LORAPLEX_TASKS_REDIS_URL is needed beside a cluster: Celery and the event bus "
                "want a Redis that is none."
            )
        return url


class ClientSettings(BaseSettings):
    """The CLI. Unset: taken from the running embedded platform in the home folder."""

    model_config = SettingsConfigDict(env_prefix="LORAPLEX_", extra="ignore")

    home: Path = Path("~/.loraplex")
    url: str = ""
    api_key: str = ""
