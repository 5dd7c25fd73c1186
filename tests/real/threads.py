"""8 threads, locks, a queue, and a numpy array of 200 MB. Protocol: see chain.py."""

import os
import queue
import threading
import time

import numpy

THREADS = 8
ITEMS = 400
directory = os.environ["CKPT_DIR"]
go = os.path.join(directory, "go")

array = numpy.arange(25_000_000, dtype=numpy.float64)  # 200 MB
chunk = len(array) // ITEMS
work = queue.Queue(maxsize=16)
locks = [threading.Lock() for _ in range(THREADS)]
tally = [0] * THREADS
done = 0
done_lock = threading.Lock()


def worker():
    global done
    while (item := work.get()) is not None:
        part = array[item * chunk : (item + 1) * chunk]
        part *= 3.0
        numpy.sqrt(part, out=part)
        # Every item belongs to one of the locks, so the threads meet at them.
        with locks[item % THREADS]:
            tally[item % THREADS] += int(part[0]) * (item + 1)
            if item > ITEMS // 2 and not os.path.exists(go):
                time.sleep(0.005)
        with done_lock:
            done += 1
            if done == ITEMS // 2:
                open(os.path.join(directory, "ready"), "w").close()


threads = [threading.Thread(target=worker, name=f"worker-{n}") for n in range(THREADS)]
for thread in threads:
    thread.start()
for item in range(ITEMS):
    work.put(item)
while not os.path.exists(go):
    time.sleep(0.002)
for _ in threads:
    work.put(None)
for thread in threads:
    thread.join()
with open(os.path.join(directory, "result"), "w") as out:
    print(done, tally, f"{array.sum():.6f}", f"{array[::997].dot(array[::997]):.6f}", file=out)
