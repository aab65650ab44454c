"""One replica: takes micro-batches from its lane, runs them, streams tokens back."""

import os

# OpenMP's threads spin for milliseconds at each barrier by default: as soon as another process
# wants a core, a decode step waits for a thread that isn't running (measured on two cores: half
# the throughput). Some microseconds are as fast. Read when torch is first imported.
DEFAULTS = {"GOMP_SPINCOUNT": "1000"}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
