# A pool of processes that computes hashes; the result is a digest of all of them, in order.
import hashlib
import multiprocessing
import os
import sys


def work(n):
    digest = str(n).encode()
    for _ in range(4000):
        digest = hashlib.sha256(digest).digest()
    return n, digest


def main():
    total = hashlib.sha256()
    with multiprocessing.Pool(3) as pool:
        for n, digest in pool.imap(work, range(500), chunksize=5):
            total.update(b"%d" % n + digest)
            if n == 100:
                open("progress", "w").close()
        # From any of them, as often as it was called.
        total.update(repr(sorted(pool.map(abs, range(-20, 0)))).encode())
        pool.close()
        pool.join()
    with open("result", "w") as out:
        out.write(total.hexdigest())


if __name__ == "__main__":
    main()
