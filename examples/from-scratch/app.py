"""Counts the primes below each multiple of 2000, and says so: `app.py SECONDS`, which it rests between two lines."""

import sys
import time

primes = []
for n in range(2, 80_001):
    for p in primes:
        if p * p > n:
            primes.append(n)
            break
        if n % p == 0:
            break
    else:
        primes.append(n)
    if n % 2000 == 0:
        print(f"{len(primes)} primes up to {n}", flush=True)
        time.sleep(float(sys.argv[1]))
