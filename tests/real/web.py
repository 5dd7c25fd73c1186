# An HTTP server and its client, processes of one tree, over a connection that stays open (loopback TCP).
import hashlib
import http.client
import http.server
import os
import sys
import threading


def content(n):
    return hashlib.sha512(b"%d" % n).digest() * (n % 400 + 1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = content(int(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def client(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    local = connection.sock.getsockname()
    after = n = 0
    while after < 50:
        n += 1
        connection.request("GET", "/%d" % n)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200 or body != content(n):
            return 3
        # The same connection from the first request to the last.
        if connection.sock is None or connection.sock.getsockname() != local:
            return 4
        if n == 50:
            open("progress", "w").close()
        if os.path.exists("go"):
            after += 1
    return 0


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    child = os.fork()
    if child == 0:
        os._exit(client(server.server_address[1]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open("result", "w") as out:
        out.write("ok" if status == 0 else "the client says %d" % status)
    sys.exit(status)


main()
