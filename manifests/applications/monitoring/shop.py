"""Answers every path, and says at /metrics how often it did."""

import http.server
import threading

lock = threading.Lock()
served = 0


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global served
        body = b"welcome\n"
        with lock:
            if self.path == "/metrics":
                body = f"# TYPE shop_requests_total counter\nshop_requests_total {served}\n".encode()
            else:
                served += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 8080), Shop).serve_forever()
