"""What the EC2 driver needs to know."""

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Ec2Pool(BaseModel):
    """Instances of one kind; a host of the fleet."""

    model_config = ConfigDict(extra="forbid")
    template: str = Field(pattern=r"^lt-[0-9a-f]+$")  # launch template: image, network, role, boot
    types: list[str] = Field(min_length=1)  # instance types, the one that is wanted most first
    subnets: list[str] = Field(min_length=1)  # one a zone
    spot: bool = False
    warm: int = Field(0, ge=0)  # so many more wait, stopped, with the image on their disks

    @model_validator(mode="after")
    def _can_stop(self) -> "Ec2Pool":
        if self.spot and self.warm:
            raise ValueError("spot instances can't be stopped: warm is for others")
        return self


class Ec2Settings(BaseSettings):
    """Replicas as EC2 instances (`LORAPLEX_DRIVER=ec2`); region and credentials as AWS has it."""

    model_config = SettingsConfigDict(env_prefix="LORAPLEX_EC2_", extra="ignore")

    pools: dict[str, Ec2Pool] = Field(
        {},
        description='Pools by host of the fleet, as JSON: `{"l4": {"template": "lt-0a1b", "types": '
        '["g6.xlarge"], "subnets": ["subnet-1", "subnet-2"], "spot": true}}`. Other types and '
        "subnets are where to go when one has no room. `warm` (not with `spot`): so many wait, "
        "stopped, with the container image on their disks, and start sooner.",
    )
    installation: str = Field(
        "loraplex",
        max_length=256,
        description="Tells this installation's instances from others' in the same account.",
    )
    max_instances: int = Field(
        8, ge=0, description="No instance is started when so many run, whatever the fleet says."
    )
    max_cost_h: float | None = Field(
        None,
        gt=0,
        description="No instance is started that would bring what runs over this price an hour, by "
        "`LORAPLEX_PRICES`. Unset: no bound.",
    )
