"""What those who watch share is bounded."""

from typing import cast

import pytest

from api.control import looks
from api.errors import ApiError
from api.state import State


def test_a_tenant_has_so_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_MOST_VIEWERS", 2)
    shared = looks.Looks(cast(State, None))
    with shared.viewing("acme"):
        shared.need_room("acme")
        with shared.viewing("acme"):
            with pytest.raises(ApiError) as refused:
                shared.need_room("acme")
            assert refused.value.status == 429
            shared.need_room("other")
        shared.need_room("acme")
