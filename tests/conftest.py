"""Fixtures that say what they are: a real Valkey, the real small model, the whole platform."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_module
from hypothesis import settings

from loraplex.broker.connection import connect
from loraplex.database import migrate
from loraplex.store.models import DEMO_MODEL, ModelStore
from tests import postgres
from tests.programs import lacks
from tests.valkey_servers import server

# The GPU's kernels run on the CPU here: `device="interpreter"`. Read when they are imported.
os.environ["TRITON_INTERPRET"] = "1"

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REPOSITORY = Path(__file__).parents[1]
ADAPTERS = REPOSITORY / "examples" / "adapters"


@pytest.fixture(scope="session")
def model_store() -> ModelStore:
    """Kept between runs, in a folder that git ignores."""
    root = REPOSITORY / ".loraplex" / "models"
    root.mkdir(parents=True, exist_ok=True)
    return ModelStore(root, allow_local=True)


@pytest.fixture(scope="session")
def smollm2(model_store: ModelStore) -> Path:
    """SmolLM2-135M-Instruct as a folder."""
    return model_store.fetch(DEMO_MODEL)


@pytest.fixture(scope="session")
def single_valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey server as `loraplex up` starts it."""
    with server(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url(single_valkey_url: str) -> str:
    return single_valkey_url


@pytest.fixture
def valkey(valkey_url: str) -> Iterator["redis_module.Redis"]:
    """A client of that server, which is empty."""
    client = connect(valkey_url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server; a database's name follows."""
    if not postgres.available():
        lacks("PostgreSQL (Debian's package postgresql)")
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database with our tables, of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('database') / 'test.db'}"
    else:
        server = request.getfixturevalue("postgres_url")
        name = f"test_{secrets.token_hex(4)}"
        postgres.create(server, name)
        url = server + name
    migrate(url)
    return url


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    """Random weights, SmolLM2's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
