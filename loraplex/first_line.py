"""Errors of others in a sentence of ours."""


def first_line(error: BaseException) -> str:
    """What it says, or what it is where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
