"""The settings reference in docs/ is the code's."""

from loraplex.settings import reference
from tests.conftest import REPOSITORY


def test_the_reference_is_up_to_date() -> None:
    written = (REPOSITORY / "docs" / "settings.md").read_text()
    assert written == reference(), "run: python -m loraplex.settings > docs/settings.md"
