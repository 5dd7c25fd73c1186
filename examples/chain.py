"""Computes a chain of hashes, each made from the one before, and says how far it is.

    python3 chain.py RESULT [SECONDS]   40 steps of SECONDS each (0.1); the whole chain is written to the file RESULT

Nothing in it knows of checkpoints.
"""

import hashlib
import sys
import time

STEPS = 40
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.1
state = b"ckpt"
with open(sys.argv[1], "w") as result:
    for step in range(1, STEPS + 1):
        until = time.monotonic() + SECONDS
        for _ in range(10_000):
            state = hashlib.sha256(state).digest()
        print(step, state.hex(), file=result)
        print(f"  step {step:2} of {STEPS}: {state.hex()[:16]}...", flush=True)
        time.sleep(max(0, until - time.monotonic()))
