"""`python -m benchmarks.chaos [--quick] [--seed N] [--requests N] [--faults N]`"""

import argparse
import os
import random

from benchmarks import report
from benchmarks.chaos.run import run
from benchmarks.chaos.verdict import FAULTS_OF_DELIVERY
from benchmarks.model_store import model_store

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("--quick", action="store_true", help="100 requests, 10 faults")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--requests", type=int)
    parser.add_argument("--faults", type=int)
    options = parser.parse_args()
    requests = options.requests or (100 if options.quick else 1000)
    faults = options.faults or (10 if options.quick else 55)
    load = os.getloadavg()[0]
    print(f"seed {options.seed}: {requests} requests, {faults} faults", flush=True)
    result = run(options.seed, requests, faults, model_store())
    rows = [(kind, result[kind]) for kind in FAULTS_OF_DELIVERY]
    report.table(f"Of {requests} requests, through {result['faults']} faults", ("", ""), rows)
    report.publish("chaos", result, ("openai", "httpx-sse"), load, save=not options.quick)
