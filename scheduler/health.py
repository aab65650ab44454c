"""`python -m scheduler.health`: exit code 0 while some scaler holds the leadership."""

import sys

from loraplex.broker.connection import connect
from loraplex.keys import LEADER
from loraplex.settings import ScalerSettings

if __name__ == "__main__":
    sys.exit(0 if connect(ScalerSettings().redis_url).exists(LEADER) else 1)
