# An asyncio HTTP server, and clients in processes of their own over connections that stay open: IPv4, IPv6
# and a unix socket. Each answer depends on what the connection has asked before.
import asyncio
import hashlib
import os
import socket
import sys

CLIENTS = 3
CONNECTIONS = 4


def body_of(state, n):
    return hashlib.sha256(state + b"%d" % n).digest() * (n % 700 + 1)


async def serve(reader, writer):
    state = b""
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            n = int(request.split(b" ", 2)[1][1:])
            body = body_of(state, n)
            state = hashlib.sha256(body).digest()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(body))
            for at in range(0, len(body), 5000):
                writer.write(body[at:at + 5000])
                await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def ask(where, number, begun):
    connect = asyncio.open_unix_connection if isinstance(where, str) else asyncio.open_connection
    reader, writer = await (connect(where) if isinstance(where, str) else connect(*where))
    local = writer.get_extra_info("sockname")
    state = b""
    n = after = 0
    while after < 25:
        n += 1
        # Two requests at once, every now and then.
        ahead = 2 if n % 5 == 0 else 1
        for i in range(ahead):
            writer.write(b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n" % (n * 31 + i))
        for i in range(ahead):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200 ") or body != body_of(state, n * 31 + i):
                raise RuntimeError("connection %d: a wrong answer to request %d" % (number, n))
            state = hashlib.sha256(body).digest()
        if writer.get_extra_info("sockname") != local or writer.get_extra_info("socket").getsockname() != local:
            raise RuntimeError("connection %d: another address" % number)
        if n == 30:
            begun()
        if os.path.exists("go"):
            after += 1
        elif n > 30:
            # Some of them are idle most of the time.
            await asyncio.sleep(0.001 * number)
    writer.close()


async def client(places, number):
    left = CONNECTIONS * len(places)

    def begun():
        nonlocal left
        left -= 1
        if left == 0:
            open("begun.%d" % number, "w").close()

    await asyncio.gather(*[ask(where, i, begun) for i in range(CONNECTIONS) for where in places])


async def main():
    def bound(family, address):
        s = socket.socket(family)
        s.bind(address)
        s.listen(50)
        return s

    listening = [bound(socket.AF_INET, ("127.0.0.1", 0)), bound(socket.AF_UNIX, "http.socket")]
    places = [listening[0].getsockname(), "http.socket"]
    try:
        listening.append(bound(socket.AF_INET6, ("::1", 0)))
        places.append(listening[2].getsockname()[:2])
    except OSError:
        pass  # no IPv6 here
    children = []
    for number in range(CLIENTS):
        child = os.fork()
        if child == 0:
            asyncio.set_event_loop(None)
            # The loop of the parent is not ours.
            asyncio.events._set_running_loop(None)
            try:
                for s in listening:
                    s.close()
                asyncio.run(client(places, number))
            except BaseException as e:
                open("said.%d" % number, "w").write(repr(e))
                os._exit(3)
            os._exit(0)
        children.append(child)
    servers = [await asyncio.start_unix_server(serve, sock=s) if s.family == socket.AF_UNIX
               else await asyncio.start_server(serve, sock=s) for s in listening]
    while not all(os.path.exists("begun.%d" % i) for i in range(CLIENTS)):
        check(children)
        await asyncio.sleep(0.01)
    open("progress", "w").close()
    while children:
        check(children)
        await asyncio.sleep(0.01)
    for server in servers:
        server.close()
    open("result", "w").write("ok")


def check(children):
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.remove(child)
            if status:
                said = "".join(open(f).read() for f in os.listdir() if f.startswith("said."))
                open("result", "w").write("a client ended with %d: %s" % (status, said))
                sys.exit(3)


asyncio.run(main())
