"""One replica: takes micro-batches from its lane, runs them, streams tokens back."""
