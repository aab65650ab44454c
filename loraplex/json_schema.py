"""JSON schemas of users: nothing is fetched for them, and their patterns run in linear time."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema_rs


def validator(schema: Mapping[str, Any]) -> "jsonschema_rs.Validator":
    """Raises ValueError for one that can't be used (a reference elsewhere, a look-around)."""
    try:
        return jsonschema_rs.validator_for(
            dict(schema), retriever=_refuse, pattern_options=jsonschema_rs.RegexOptions()
        )
    except jsonschema_rs.ReferencingError as wrong:
        raise ValueError(str(wrong)) from wrong


def allows(validator: "jsonschema_rs.Validator", text: str) -> bool:
    """Whether it is JSON that the schema allows."""
    try:
        return validator.is_valid(json.loads(text))
    except (ValueError, RecursionError):
        return False


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri}: references to other documents are not followed")
