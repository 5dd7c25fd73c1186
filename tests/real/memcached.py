# memcached with many values, and two clients that stay connected: one idle, one at work.
import os
import signal
import socket
import sys

from programs import *

port = int(sys.argv[1])
KEYS = 3000


class Client:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.stream = self.socket.makefile("rwb")

    def ask(self, line, data=None):
        self.stream.write(line.encode() + b"\r\n")
        if data is not None:
            self.stream.write(data + b"\r\n")
        self.stream.flush()
        return self.stream.readline().decode().strip()

    def get(self, key):
        answer = self.ask("get " + key)
        if answer == "END":
            return None
        data = self.stream.read(int(answer.split()[3]) + 2)[:-2]
        check(self.stream.readline() == b"END\r\n", "no END")
        return data

    def stats(self):
        self.stream.write(b"stats\r\n")
        self.stream.flush()
        lines = iter(self.stream.readline, b"END\r\n")
        return dict(line.decode().split()[1:3] for line in lines)


def value(n):
    return (b"%d," % (n * n)) * (n % 200 + 1)


user = ["-u", "root"] if os.geteuid() == 0 else []
server = start("memcached", "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-t", "4", "-m", "32", *user)
wait_until(lambda: listens(port), "memcached")
busy, idle = Client(), Client()
for n in range(KEYS):
    check(busy.ask("set key%d %d 1000 %d" % (n, n % 7, len(value(n))), value(n)) == "STORED", "not stored")
check(busy.ask("set counter 0 0 1", b"0") == "STORED", "no counter")
check(idle.ask("set unsure 0 0 3", b"old") == "STORED", "not stored")
unique = idle.ask("gets unsure").split()[4]
check(idle.stream.readline() + idle.stream.readline() == b"old\r\nEND\r\n", "no value")
# Half a command waits for its other half.
idle.stream.write(b"cas unsure 0 0 3 " + unique.encode() + b"\r\nne")
idle.stream.flush()
count = 0
while not may_end():
    count += 1
    check(busy.ask("incr counter 1") == str(count), "the counter is wrong")
    n = count * 7919 % KEYS
    check(busy.get("key%d" % n) == value(n), "key %d is wrong" % n)
    if count == 200:
        in_the_middle()
idle.stream.write(b"w\r\n")
idle.stream.flush()
check(idle.stream.readline() == b"STORED\r\n", "the idle client's command failed")
again = Client()
for client in busy, idle, again:
    for n in range(0, KEYS, 3):
        check(client.get("key%d" % n) == value(n), "key %d is wrong" % n)
    check(client.get("unsure") == b"new" and client.get("nothing") is None, "other values are wrong")
    count += 1
    check(client.ask("incr counter 1") == str(count), "the counter is wrong")
stats = again.stats()
check(int(stats["curr_items"]) == KEYS + 2 and stats["evictions"] == "0", "the statistics are %r" % stats)
check(int(stats["pid"]) == server.pid and int(stats["threads"]) == 4, "the statistics are %r" % stats)
server.send_signal(signal.SIGTERM)
ends_well(server)
over()
