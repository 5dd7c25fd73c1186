# inotifywait tells of every change below a directory, in order, once.
import os
import subprocess
import threading
import time

from programs import *

os.makedirs("watched/below")
watcher = start("inotifywait", "-m", "-r", "--format", "%e %w%f", "watched", stdout=subprocess.PIPE,
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
# A new directory, which it begins to watch when it hears of it.
os.mkdir("watched/later")
check(line() == "CREATE,ISDIR watched/later", "nothing of the new directory")
heard = threading.Event()


def busy():
    while not heard.is_set():
        open("watched/later/file", "w").close()
        time.sleep(0.02)


thread = threading.Thread(target=busy)
thread.start()
while "watched/later/file" not in line():
    pass
heard.set()
thread.join()
watcher.terminate()
watcher.wait()
over()
