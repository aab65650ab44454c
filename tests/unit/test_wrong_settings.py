"""Settings that are wrong are named as they were set, with what is wrong."""

import json
import os

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from loraplex.settings import ScalerSettings
from loraplex.unknown_settings import check_all, checked, told

POOL = {"template": "lt-0a", "types": ["g6.xlarge"], "subnets": ["subnet-1"]}


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LORAPLEX_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("LORAPLEX_MODELS_GIB", "abc", "valid number"),
        ("LORAPLEX_MODEL_STORE", "bucket", "s3://BUCKET/PREFIX"),
        ("LORAPLEX_MODEL_STORE", "s3:/bucket", "s3://BUCKET/PREFIX"),
        ("LORAPLEX_ADAPTER_STORE", "http://x/y", "s3://BUCKET/PREFIX"),
        ("LORAPLEX_MODEL_DISK", "file:///mnt/x", "a folder of this machine"),
        ("LORAPLEX_EC2_POOLS", "nonsense", "no JSON"),
        ("LORAPLEX_EC2_POOLS", json.dumps({"l4": POOL | {"warm": -1}}), "l4.warm: Input"),
        ("LORAPLEX_EC2_POOLS", json.dumps({"l4": POOL | {"warm": 1, "spot": True}}), "l4: Value"),
    ],
)
def test_it_is_named_with_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    monkeypatch.setenv("LORAPLEX_DRIVER", "ec2")
    monkeypatch.setenv(name, value)
    with pytest.raises((ValidationError, SettingsError)) as wrong:
        check_all()
    ((named, text),) = told(wrong.value)
    assert named == name
    assert why in text
    with pytest.raises(SystemExit, match=f"error: {name}="), checked():
        raise wrong.value


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/a/b", "s3://my.bucket-1/models/", "file:///mnt/x"]
)
def test_stores_that_are_right(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LORAPLEX_MODEL_STORE", url)
    assert ScalerSettings().model_store == url
    check_all()
