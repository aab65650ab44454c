"""Names of base models: what can't be one is refused before anything is fetched."""

from pathlib import Path

import pytest

from loraplex.store.models import ModelBusy, ModelStore, ModelUnavailable, _locked


@pytest.mark.parametrize("name", ["gpt2", "org/model", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_hub_names(name: str, tmp_path: Path) -> None:
    ModelStore(tmp_path, allow_local=False).check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-org/x", "org/x-", "org/.x", "org/a--b", "a/b/c", "org/m\n", "org/" + "m" * 97),
        *("../../etc", "org/..", "~nosuchuser/x", "/tmp/\0", "/nowhere"),
    ],
)
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        store = ModelStore(tmp_path, allow_local=True)
        store.check_name(name)
        store.fetch(name)


def test_a_model_that_another_process_fetches_is_busy(tmp_path: Path) -> None:
    with _locked(tmp_path / ".org--model.lock"), pytest.raises(ModelBusy):
        ModelStore(tmp_path, allow_local=False).fetch("org/model")
