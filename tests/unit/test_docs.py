"""Reference pages say what the code says."""

from pathlib import Path

import pytest

from docs.generate import api, cli, metrics, settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("file", "page", "command"),
    [
        ("settings.md", settings.page, "docs.generate.settings"),
        ("metrics.md", metrics.page, "docs.generate.metrics"),
        ("cli.md", cli.page, "docs.generate.cli"),
        ("api.md", api.page, "docs.generate.api"),
    ],
)
def test_a_generated_page_is_up_to_date(file: str, page: object, command: str) -> None:
    assert callable(page)
    assert (DOCS / file).read_text() == page(), f"python -m {command} > docs/{file}"
