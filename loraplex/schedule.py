"""The days that a schedule may name."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
