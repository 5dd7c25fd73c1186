"""A hash chain written to a file: any lost or repeated step changes everything after it.

Protocol of all programs in this folder: in $CKPT_DIR the program creates `ready` in the middle of its
work and goes on; until `go` exists it works slowly, so that it is still at work when it is dumped; it
does not end before `go` exists. What it computes, in `result`, does not depend on time.
"""

import hashlib
import os
import time

STEPS = 2000
directory = os.environ["CKPT_DIR"]
go = os.path.join(directory, "go")
state = b"ckpt"
with open(os.path.join(directory, "result"), "w") as out:
    for step in range(STEPS):
        for _ in range(100):
            state = hashlib.sha256(state).digest()
        out.write(f"{step} {state.hex()}\n")
        if step == STEPS // 2:
            open(os.path.join(directory, "ready"), "w").close()
        if STEPS // 2 <= step and not os.path.exists(go):
            time.sleep(0.002)
    while not os.path.exists(go):
        time.sleep(0.002)
