"""Says which track answered; /buy takes some CPU first."""

import hashlib
import http.server
import os
import socket

ROUNDS = 5_000
ANSWER = f"{os.environ['TRACK']} {socket.gethostname()}\n".encode()


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/buy":
            hashlib.pbkdf2_hmac("sha256", b"order", b"salt", ROUNDS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8080), Shop).serve_forever()
