# curl gets 200 MB from an HTTP server in the same tree.
import hashlib
import http.server
import os
import sys
import threading
import time

from programs import *

SIZE = 200_000_000
PIECE = 1 << 18


def piece(n):
    start = hashlib.sha256(b"%d" % n).digest()
    return (start * 64 + b"%016d" % n) * (PIECE // 2064) + bytes(PIECE % 2064)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        sent = 0
        digest = hashlib.sha256()
        while sent < SIZE:
            data = piece(sent // PIECE)[:SIZE - sent]
            self.wfile.write(data)
            digest.update(data)
            sent += len(data)
        self.server.digest = digest.hexdigest()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
# So slow that it is the server that waits.
curl = start("curl", "-sS", "--noproxy", "*", "--limit-rate", "100M", "-o", "download",
             "http://127.0.0.1:%d/download" % server.server_address[1])
wait_until(lambda: os.path.exists("download") and os.path.getsize("download") > SIZE // 4, "download")
in_the_middle()
ends_well(curl)
digest = hashlib.sha256()
with open("download", "rb") as file:
    while data := file.read(1 << 20):
        digest.update(data)
check(os.path.getsize("download") == SIZE, "the file has %d bytes" % os.path.getsize("download"))
check(digest.hexdigest() == server.digest, "the file has other contents")
over()
