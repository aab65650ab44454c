"""What the Kubernetes driver needs to know."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class KubernetesSettings(BaseSettings):
    """Replicas as pods (`LORAPLEX_DRIVER=kubernetes`), as the Helm chart in `infra/helm` has it."""

    model_config = SettingsConfigDict(env_prefix="LORAPLEX_KUBERNETES_", extra="ignore")

    templates: Path = Field(
        Path("/etc/loraplex/pods"),
        description="A folder with a pod template for each host of the fleet, `HOST.yaml`: image, "
        "GPU requests, node selector, volumes. Its first container becomes the replica.",
    )
    namespace: str = Field(
        "", description="Where pods are made. Empty: the driver's own, or the kubeconfig's."
    )
    installation: str = Field(
        "loraplex",
        pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$",
        description="Tells this installation's pods from others' in the same namespace.",
    )
