"""What a client reads whose deployment takes no requests."""

from loraplex.status import Status


def not_serving(name: str, status: str, reason: str) -> str:
    if status == Status.STOPPED:
        return f"Deployment {name!r} is stopped. Start it: loraplex start {name}"
    if status == Status.ERRORED:
        why = reason if reason.endswith((".", "!", "?")) else f"{reason}."
        return f"Deployment {name!r} could not start: {why} Try again with: loraplex start {name}"
    return f"Deployment {name!r} was deleted."
