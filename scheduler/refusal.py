"""What a client reads whose deployment takes no requests."""

from loraplex.status import Status


def refusal(name: str, status: Status, reason: str) -> str:
    if status == Status.STOPPED:
        return f"Deployment {name!r} is stopped. Start it: loraplex start {name}"
    if status == Status.ERRORED:
        return (
            f"Deployment {name!r} could not start: {reason} Try again with: loraplex start {name}"
        )
    return f"Deployment {name!r} was deleted."
