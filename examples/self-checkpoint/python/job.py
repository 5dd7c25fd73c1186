"""Draws numbers until it likes them, going back each time; then saves itself: job.py IMAGE NOTES"""

import random
import sys

import ckpt

image, notes = sys.argv[1:]
start = ckpt.checkpoint()
# From here on it is run again and again, from the same memory: even the random numbers would be the same.
attempt = len(open(notes).readlines()) + 1 if start.restored else 1
random.seed(attempt)
numbers = [random.randrange(100) for _ in range(3)]
with open(notes, "a") as file:
    print(attempt, numbers, file=file)
if sum(numbers) < 200:
    ckpt.revert(start.id)

print(f"Python: liked attempt {attempt}: {numbers}", flush=True)
ckpt.forget(start.id)
restored, number = ckpt.checkpoint(image, "--compress")
print(f"Python: {'restored' if restored else 'saved'} as checkpoint {number}, sum {sum(numbers)}", flush=True)
