"""An update, or a deletion, that says whether it has met the rows that it was written for."""

from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Update
from sqlmodel import Session


def changed(session: Session, wanted: Update | Delete) -> int:
    """How many rows; not committed. 0: another process was faster."""
    return cast(CursorResult[Any], session.execute(wanted)).rowcount
