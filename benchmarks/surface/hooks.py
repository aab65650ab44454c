"""Schemathesis' cases, made to reach what lies behind the first look-up: run in its environment."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Deployments that are only asked, not changed."""
    if isinstance(path_parameters, dict) and "deployment" in path_parameters:
        path_parameters["deployment"] = "chat"
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = "chat"
    return body
