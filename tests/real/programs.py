# For the scripts beside this: programs that run below them, and what the tests want to know.
import os
import signal
import subprocess
import sys
import time

children = []


def start(*words, **how):
    """A program of the tree; its stderr is the caller's."""
    child = subprocess.Popen(words, **how)
    children.append(child)
    return child


def fail(why):
    with open("result", "w") as out:
        out.write(why)
    for child in children:
        child.kill()
    # From any thread.
    os._exit(3)


def check(condition, why):
    if not condition:
        fail(why)


def wait_until(condition, what):
    """Until a program is where we want it: before the dump only."""
    for _ in range(3000):
        if condition():
            return
        check(all(child.poll() in (None, 0) for child in children), "a program has ended, waiting for " + what)
        time.sleep(0.01)
    fail("no " + what)


def has_socket(kind, port, state):
    for table in kind, kind + "6":
        if os.path.exists("/proc/net/" + table):
            for line in open("/proc/net/" + table).readlines()[1:]:
                fields = line.split()
                if fields[1].endswith(":%04X" % port) and fields[3] == state:
                    return True
    return False


def listens(port):
    """Whether a port is listened at, without a connection to it, which the program might take for its client."""
    return has_socket("tcp", port, "0A")


def receives(port):
    return has_socket("udp", port, "07")


def listens_at(path):
    return any(line.split()[3] == "00010000" and line.split()[-1] == path
               for line in open("/proc/net/unix").readlines()[1:])


def in_the_middle():
    open("progress", "w").close()


def may_end():
    return os.path.exists("go")


def ends_well(child, expected=0):
    status = child.wait()
    check(status == expected, "%s ended with %d" % (child.args[0], status))


def over():
    with open("result", "w") as out:
        out.write("ok")
    sys.exit(0)
