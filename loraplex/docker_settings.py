"""What the Docker driver needs to know."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DockerSettings(BaseSettings):
    """Replicas as containers (`LORAPLEX_DRIVER=docker`)."""

    model_config = SettingsConfigDict(env_prefix="LORAPLEX_DOCKER_", extra="ignore")

    hosts: dict[str, str] = Field(
        {},
        description='Engines by host name, as JSON: `{"gpu-1": "tcp://10.0.0.1:2376"}`; TLS as '
        "`DOCKER_CERT_PATH` says. Empty: one host, `local`, the engine at `DOCKER_HOST`.",
    )
    installation: str = Field(
        "",
        description="Tells this installation's containers from others' on the same engine. Empty: "
        "the path of the home folder.",
    )
    image: str = Field("loraplex/gpu_worker", description="Image of replicas.")
    network: str = Field(
        "",
        description="Network in which replicas reach Redis; `host` where that listens on loopback.",
    )
    volume: str = Field(
        "",
        description="Volume, or folder of the engine's machine, that holds the home folder; "
        "replicas read it. Empty: this home's models and adapters, by their paths here.",
    )
    gpus: bool = Field(
        False, description="Each replica gets one GPU of its host (NVIDIA's container toolkit)."
    )
    memory_gib: float | None = Field(
        None, gt=0, description="Memory limit of a replica, in GiB. Unset: none."
    )
    labels: dict[str, str] = Field(
        {}, description="Labels that replicas' containers get besides Loraplex' own, as JSON."
    )
