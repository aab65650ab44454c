"""A deployment's `config` as Predibase's SDK (2025.10.3) sends and reads it.

It sends every field, null where unset. What we have is honoured, what would change the answers
silently is refused by name, what can't matter is taken without effect.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.control.deployment_schemas import (
    MOST_PRELOADED,
    DeploymentCreate,
    DeploymentPatch,
    Description,
    EngineSettings,
    PreloadedRef,
    Replicas,
    Seconds,
)
from api.errors import bad_request
from loraplex.entities import Deployment


def _only(*allowed: object) -> AfterValidator:
    def check(value: object) -> object:
        if value and value not in allowed:
            raise ValueError("this isn't supported here; leave it out")
        return value

    return AfterValidator(check)


def _not_off(value: object) -> object:
    if value is False:
        raise ValueError("this is always on here; leave it out")
    return value


Refused = Annotated[Any, _only()]
AlwaysOn = Annotated[bool | None, AfterValidator(_not_off)]


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    base_model: str | None = Field(None, min_length=1, max_length=512)
    min_replicas: Replicas | None = None
    max_replicas: int | None = Field(None, ge=1, le=64)
    cooldown_time: Seconds | None = None
    scale_up_request_threshold: int | None = Field(None, ge=1, le=4096)
    max_num_batched_tokens: int | None = Field(None, ge=16, le=65536)
    preloaded_adapters: list[PreloadedRef] | None = Field(None, max_length=MOST_PRELOADED)
    prefix_caching: AlwaysOn = None
    chunked_prefill: AlwaysOn = None
    # without effect
    lorax_image_tag: str | None = None
    backend: str | None = None
    cache_model: bool | None = None
    speculation_disable_by_batch_size: int | None = None
    # refused, as far as they ask for something
    accelerator: Refused = None
    compute_spec: Refused = None
    custom_args: Refused = None
    direct_ingress: Refused = None
    disable_adapters: Refused = None
    hf_token: Refused = None
    max_total_tokens: Refused = None
    merge_adapter: Refused = None
    quantization: Annotated[Any, _only("none")] = None
    request_logging_enabled: Refused = None
    speculator: Annotated[Any, _only("disabled", "auto")] = None
    uses_guaranteed_capacity: Refused = None

    def given(self) -> dict[str, Any]:
        """The fields of ours that it sets."""
        found = {
            "base_model": self.base_model,
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "cooldown_time": self.cooldown_time,
            "scale_up_threshold": self.scale_up_request_threshold,
        }
        return {name: value for name, value in found.items() if value is not None}

    def engine(self) -> EngineSettings:
        return EngineSettings(
            max_step_tokens=self.max_num_batched_tokens, preload=self.preloaded_adapters or None
        )


class Create(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    config: Config
    description: Description | None = None

    def ours(self) -> DeploymentCreate:
        """Raises ApiError."""
        if self.config.base_model is None:
            raise bad_request("config.baseModel is missing.", "config.baseModel")
        given = self.config.given() | {"name": self.name, "description": self.description or ""}
        return DeploymentCreate(**given, engine=self.config.engine())


class Update(BaseModel):
    model_config = ConfigDict(extra="forbid")
    config: Config | None = None
    description: Description | None = None

    def ours(self, now: dict[str, str]) -> DeploymentPatch:
        """`now`: the engine's settings, as they are; what isn't given stays."""
        config = self.config or Config()
        given = config.given()
        if self.description is not None:
            given["description"] = self.description
        engine = config.engine().model_dump(exclude_none=True)
        if engine:
            given["engine"] = EngineSettings.model_validate(now | engine)
        return DeploymentPatch(**given)


def shown(
    deployment: Deployment, engine: dict[str, str], replicas: int, context: int
) -> dict[str, Any]:
    """A deployment as the SDK reads it; all fields but `quantization` must be there."""
    config = Config(
        baseModel=deployment.base_model,
        minReplicas=deployment.min_replicas,
        maxReplicas=deployment.max_replicas,
        cooldownTime=deployment.cooldown_time,
        scaleUpRequestThreshold=deployment.scale_up_threshold,
        maxNumBatchedTokens=engine.get("max_step_tokens"),
        preloadedAdapters=engine["preload"].split(", ") if "preload" in engine else None,
        prefixCaching=True,
        chunkedPrefill=True,
    )
    return {
        "name": deployment.name,
        "uuid": deployment.id,
        "description": deployment.description,
        "type": "shared" if deployment.shared else "private",
        "status": deployment.status,
        "model": {"name": deployment.base_model, "maxInputLength": context},
        "accelerator": {"id": ""},
        "quantization": None,
        "currentReplicas": replicas,
        "config": config.model_dump(by_alias=True, exclude_none=True),
        "usesGuaranteedCapacity": False,
    }
