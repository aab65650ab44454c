"""Where adapters may come from: what is understood, what is refused, what an operator allows."""

from pathlib import Path

import pytest

from api.registry.repos import check_name
from loraplex.store.sources import Allowed, Source, SourceKind, SourceRefused, check_allowed, parse


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision", "repo"),
    [
        ("hub:org/name", SourceKind.HUB, "org/name", "", "org-name"),
        ("hub:org/na.me@v1.0", SourceKind.HUB, "org/na.me", "v1.0", "org-na.me"),
        ("s3://bucket/a/b/", SourceKind.S3, "s3://bucket/a/b", "", "a-b"),
        ("/data/x/adapter_", SourceKind.LOCAL, "/data/x/adapter_", "", "x-adapter"),
        ("/", SourceKind.LOCAL, "/", "", "imported"),
    ],
)
def test_what_is_understood(
    text: str, kind: SourceKind, name: str, revision: str, repo: str
) -> None:
    source = parse(text)
    assert source == Source(kind, name, revision)
    assert source.repo == repo
    check_name(source.repo)
    assert parse(str(source)) == source


@pytest.mark.parametrize(
    "text",
    [
        *("", "org/name", "http://x/y", "hub:", "hub:../x", "hub:a/b@", "hub:a/b@../x", "hub:a b"),
        *("hub:a/b/c", "s3://b/x", "s3://bucket", "s3://bucket/", "s3://bucket/../x", "s3://B_/x"),
        *("./x", "~/x", "/a\nb", "/a\0b", "/" + "a" * 2000, "hub:a/b@" + "r" * 300),
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(SourceRefused):
        parse(text)


@pytest.mark.parametrize(
    ("text", "local", "prefixes", "allowed"),
    [
        ("hub:org/name", False, [], True),
        ("/data/x", False, [], False),
        ("/data/x", True, [], True),
        ("/srv/home/adapters/x", True, [], False),
        ("/srv/x/../home/adapters/x", True, [], False),
        ("s3://bucket/a/b", True, [], False),
        ("s3://bucket/a/b", False, ["s3://bucket"], True),
        ("s3://bucket/a/b", False, ["s3://bucket/a/b/"], True),
        ("s3://bucket/ab", False, ["s3://bucket/a"], False),
        ("s3://bucket/acme/b", False, ["s3://bucket/{tenant}"], True),
        ("s3://bucket/other/b", False, ["s3://bucket/{tenant}"], False),
    ],
)
def test_what_an_operator_allows(
    text: str, local: bool, prefixes: list[str], allowed: bool
) -> None:
    try:
        check_allowed(parse(text), Allowed("acme", local, Path("/srv/home"), prefixes))
    except SourceRefused as refused:
        assert not allowed, refused
    else:
        assert allowed
