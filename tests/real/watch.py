# inotifywait tells of every change below a directory, in order, once.
import os
import subprocess

from programs import *

os.makedirs("watched/below")
# Both are named: as an ordinary user the dumper has to walk through directories to find what is not, and a
# walk through a watched one is seen.
watcher = start("inotifywait", "-m", "--format", "%e %w%f", "watched", "watched/below", stdout=subprocess.PIPE,
                stderr=open("watcher.said", "w"))
wait_until(lambda: "Watches established" in open("watcher.said").read(), "watches")


def line():
    text = watcher.stdout.readline().decode().strip()
    check(text, "the end of inotifywait")
    return text


def change(n):
    """Changes, and what is told of them."""
    old, new = "watched/below/old%d" % n, "watched/new%d" % n
    with open(old, "w") as file:
        file.write("text")
    os.rename(old, new)
    os.unlink(new)
    return ["CREATE " + old, "OPEN " + old, "MODIFY " + old, "CLOSE_WRITE,CLOSE " + old, "MOVED_FROM " + old,
            "MOVED_TO " + new, "DELETE " + new]


def changes(first):
    expected = [text for n in range(first, first + 20) for text in change(n)]
    for text in expected:
        told = line()
        check(told == text, "it tells %r, expected %r" % (told, text))


n = 0
while not may_end():
    changes(n)
    n += 20
    if n == 100:
        in_the_middle()
for _ in range(5):
    changes(n)
    n += 20
# The directory is watched, not its name.
os.rename("watched/below", "watched/moved")
open("watched/moved/file", "w").close()
for text in ("MOVED_FROM,ISDIR watched/below", "MOVED_TO,ISDIR watched/moved", "MOVE_SELF watched/below/",
             "CREATE watched/below/file"):
    told = line()
    check(told == text, "it tells %r, expected %r" % (told, text))
watcher.terminate()
watcher.wait()
over()
