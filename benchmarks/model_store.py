"""The checkout's model store, which tests use too."""

from pathlib import Path

from loraplex.settings import Settings
from loraplex.store.models import DEMO_MODEL, ModelStore


def model_store() -> ModelStore:
    """With SmolLM2-135M-Instruct in it."""
    root = Path(__file__).parents[1] / ".loraplex" / "models"
    root.mkdir(parents=True, exist_ok=True)
    store = ModelStore(root, allow_local=Settings().allow_local_models)
    store.fetch(DEMO_MODEL)
    return store
