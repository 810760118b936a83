"""Keeps for each shelf a config map with its number of books, and refuses shelves of more than a hundred.

A client of the API from inside a pod, with nothing but Python: the token and the authority that every pod is
given, and the address in its environment.

The file must not be named operator.py: it would hide the module of that name from Python's own library.
"""

import http.server
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
GROUP = "/apis/library.example.com/v1"
MOST_BOOKS = 100
# A watch that says nothing for so long is asked anew.
WATCH_SECONDS = 30
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


def ask(method, path, body=None, kind="application/json"):
    """An answer that can be read, or an HTTPError."""
    with open(f"{ACCOUNT}/token") as file:
        token = file.read()
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(
        f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
    )
    trust = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    return urllib.request.urlopen(request, context=trust, timeout=WATCH_SECONDS + 10)


def keep(shelf):
    meta, books = shelf["metadata"], shelf["spec"]["books"]
    name, namespace = meta["name"], meta["namespace"]
    owner = {"apiVersion": shelf["apiVersion"], "kind": "Shelf", "name": name, "uid": meta["uid"]}
    catalogue = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-catalogue", "ownerReferences": [owner]},
        "data": {"books": str(books)},
    }
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    ask("PATCH", f"{maps}/{name}-catalogue?fieldManager=operator&force=true", catalogue, APPLY)
    if shelf.get("status", {}).get("listed") != books:
        status = f"{GROUP}/namespaces/{namespace}/shelves/{name}/status"
        ask("PATCH", status, {"status": {"listed": books}}, MERGE)


def follow():
    """Keeps what is there, then what comes, until the watch ends."""
    with ask("GET", f"{GROUP}/shelves") as answer:
        found = json.load(answer)
    for shelf in found["items"]:
        keep({"apiVersion": "library.example.com/v1", **shelf})
    since = found["metadata"]["resourceVersion"]
    query = f"watch=1&resourceVersion={since}&timeoutSeconds={WATCH_SECONDS}"
    with ask("GET", f"{GROUP}/shelves?{query}") as events:
        for line in events:
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            if event["type"] != "DELETED":
                keep(event["object"])


def operate():
    while True:
        try:
            follow()
        except (OSError, urllib.error.URLError) as error:
            print("again, after", error)
            time.sleep(1)


class Judge(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)["request"]
        books = asked["object"]["spec"]["books"]
        verdict = {"uid": asked["uid"], "allowed": books <= MOST_BOOKS}
        if books > MOST_BOOKS:
            verdict["status"] = {"message": f"{books} books are too many for a shelf"}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": verdict}
        answer = json.dumps(review).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def main():
    threading.Thread(target=operate, daemon=True).start()
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain("/certificate/tls.crt", "/certificate/tls.key")
    server = http.server.ThreadingHTTPServer(("", 8443), Judge)
    server.socket = shown.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


main()
