"""A deterministic simulator: the real law, reconciler and status table in virtual time, against
simulated lanes, replicas, tasks and faults. One seed, one run."""
