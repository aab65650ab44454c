"""A tenant's budget of a calendar month (UTC): within, warned of, used up. Pure."""

from datetime import UTC, datetime

from loraplex.budget_state import BudgetState


def month_of(now: float) -> tuple[str, int]:
    """Its name, such as 2026-11, and its begin (Unix seconds)."""
    at = datetime.fromtimestamp(now, UTC)
    begin = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return f"{at:%Y-%m}", int(begin.timestamp())


def judge(cost: float, budget: float, warn_at: float) -> BudgetState:
    if cost >= budget:
        return BudgetState.EXCEEDED
    return BudgetState.WARNED if cost >= warn_at * budget else BudgetState.WITHIN
