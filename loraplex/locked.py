"""Locks of files and folders, which the kernel frees when their holder dies."""

import fcntl


def is_locked(descriptor: int) -> bool:
    """By us now, until it is closed. False: by another one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
