"""A guestbook: what is posted to /guests goes to one redis, and is read from others that copy it."""

import http.server
import os

import redis

KEY = "guests"
TIMEOUT_S = 3


def store(variable):
    return redis.Redis(
        host=os.environ[variable],
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        decode_responses=True,
    )


class Guestbook(http.server.BaseHTTPRequestHandler):
    def answer(self, text, status=200):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer("ok\n")
        try:
            # A connection for each request: it goes to any of the copies.
            with store("READ_FROM") as copy:
                guests = copy.lrange(KEY, 0, -1)
        except redis.RedisError as error:
            return self.answer(f"{error}\n", 503)
        self.answer("".join(f"{guest}\n" for guest in guests))

    def do_POST(self):
        guest = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            with store("WRITE_TO") as leader:
                leader.rpush(KEY, guest)
        except redis.RedisError as error:
            return self.answer(f"{error}\n", 503)
        self.answer("thanks\n")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8080), Guestbook).serve_forever()
