# nc and socat pass on what we send, over TCP, unix sockets or UDP; all of it arrives, in order, once.
import subprocess
import sys
import threading
import time

from programs import *

PIECE = 1 << 16
kind = sys.argv[1]
one, two = (int(port) for port in sys.argv[2:4])


def piece(n):
    return (b"%015d " % n) * (PIECE // 16)


def stream(source, sink):
    """More than all buffers hold, into a reader that is slow until the test says go."""
    total = None

    def send():
        nonlocal total
        n = 0
        ends = None
        while n != ends:
            source.stdin.write(piece(n))
            n += 1
            if ends is None and may_end():
                ends = n + 100
        total = n
        source.stdin.close()

    sender = threading.Thread(target=send)
    sender.start()
    n = 0
    while True:
        data = sink.stdout.read(PIECE)
        if not data:
            break
        check(data == piece(n), "piece %d has %d bytes: %r ..." % (n, len(data), data[:32]))
        n += 1
        if n == 100:
            in_the_middle()
        if n > 100 and not may_end():
            time.sleep(0.002)
    sender.join()
    check(n == total, "%r pieces arrived, %r were sent" % (n, total))


def dialogue(source):
    """One datagram at a time, back by an echo."""
    def ask(n):
        line = (b"%d " % n) * (n % 90 + 1) + b"\n"
        source.stdin.write(line)
        source.stdin.flush()
        check(source.stdout.readline() == line, "no echo of %d" % n)

    n = 0
    while not may_end():
        ask(n)
        n += 1
        if n == 100:
            in_the_middle()
    for _ in range(100):
        ask(n)
        n += 1


pipe = subprocess.PIPE
if kind == "tcp":
    sink = start("nc", "-l", "127.0.0.1", str(two), stdout=pipe, stdin=subprocess.DEVNULL)
    wait_until(lambda: listens(two), "nc -l")
    relay = start("socat", "TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr" % one, "TCP:127.0.0.1:%d" % two)
    wait_until(lambda: listens(one), "socat")
    source = start("nc", "-N", "127.0.0.1", str(one), stdin=pipe)
elif kind == "tcp6":
    sink = start("socat", "-u", "TCP6-LISTEN:%d,bind=[::1],reuseaddr" % two, "STDOUT", stdout=pipe)
    wait_until(lambda: listens(two), "socat")
    relay = start("socat", "TCP6-LISTEN:%d,reuseaddr,fork,max-children=1" % one, "TCP6:[::1]:%d" % two)
    wait_until(lambda: listens(one), "socat")
    source = start("nc", "-6", "-N", "::1", str(one), stdin=pipe)
elif kind == "unix":
    sink = start("nc", "-l", "-U", "two.socket", stdout=pipe, stdin=subprocess.DEVNULL)
    wait_until(lambda: listens_at("two.socket"), "nc -l -U")
    relay = start("socat", "UNIX-LISTEN:one.socket", "UNIX-CONNECT:two.socket")
    wait_until(lambda: listens_at("one.socket"), "socat")
    source = start("nc", "-N", "-U", "one.socket", stdin=pipe)
else:
    echo = start("socat", "UDP4-LISTEN:%d,bind=127.0.0.1" % two, "EXEC:cat")
    wait_until(lambda: receives(two), "the echo")
    relay = start("socat", "UDP4-LISTEN:%d,bind=127.0.0.1" % one, "UDP4:127.0.0.1:%d" % two)
    wait_until(lambda: receives(one), "socat")
    source = start("nc", "-u", "127.0.0.1", str(one), stdin=pipe, stdout=pipe)
if kind == "udp":
    dialogue(source)
    for child in children:
        child.terminate()
        child.wait()
else:
    stream(source, sink)
    if kind == "tcp6":
        # It waits for the next one.
        relay.terminate()
        relay.wait()
    else:
        ends_well(relay)
    ends_well(source)
    ends_well(sink)
over()
