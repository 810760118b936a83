"""Orders and bills, over NATS' JetStream.

`work` bills each order; `order PREFIX NUMBER` places orders and returns when all are kept; `bills PREFIX` counts
the bills of such orders; `waiting` is the number of orders that are not billed yet.
"""

import itertools
import json
import os
import pathlib
import socket
import sys
import time

TIMEOUT_S = 5
COPIES = 3
# Seconds after which an order whose worker is gone is another's.
WORK_S = 10
ACKNOWLEDGE = "$JS.ACK."


class Connection:
    """The few words of NATS' protocol that JetStream takes."""

    def __init__(self):
        self.socket = socket.create_connection((os.environ["SERVER"], 4222), TIMEOUT_S)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.inbox = f"_INBOX.{os.urandom(8).hex()}"
        self.numbers = itertools.count()
        options = {"verbose": False, "pedantic": False, "headers": True, "lang": "python", "version": "1"}
        self.write(f"CONNECT {json.dumps(options)}\r\nSUB {self.inbox}.* 1\r\nPING\r\n".encode())
        while self.file.readline() != b"PONG\r\n":
            pass

    def write(self, data):
        self.socket.sendall(data)

    def ask(self, subject, body=b"", headers=None, timeout=TIMEOUT_S):
        """The body of the answer, and where its sender wants to hear."""
        reply = f"{self.inbox}.{next(self.numbers)}"
        if headers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = f"NATS/1.0\r\n{lines}\r\n".encode()
            size = f"{len(head)} {len(head) + len(body)}"
            self.write(f"HPUB {subject} {reply} {size}\r\n".encode() + head + body + b"\r\n")
        else:
            self.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")
        self.socket.settimeout(timeout)
        while True:
            words = self.file.readline().split()
            if not words:
                raise ConnectionError("the server is gone")
            if words[0] == b"PING":
                self.write(b"PONG\r\n")
            elif words[0] in (b"MSG", b"HMSG"):
                data = self.file.read(int(words[-1]) + 2)[:-2]
                head = int(words[-2]) if words[0] == b"HMSG" else 0
                back = words[3].decode() if len(words) == (6 if head else 5) else ""
                # A message of a stream keeps its own subject; it says where it is to be acknowledged.
                if words[1].decode() == reply or back.startswith(ACKNOWLEDGE):
                    return data[head:], data[:head], back

    def call(self, name, request=None):
        body = json.dumps(request).encode() if request is not None else b""
        answer = json.loads(self.ask(f"$JS.API.{name}", body)[0])
        if "error" in answer:
            raise ConnectionError(answer["error"]["description"])
        return answer

    def keep(self, subject, body, identifier):
        """Returns when a quorum has the message. One that is sent twice is kept once."""
        answer = json.loads(self.ask(subject, body, {"Nats-Msg-Id": identifier})[0])
        if "error" in answer:
            raise ConnectionError(answer["error"]["description"])


def again(act, seconds=60):
    """Servers come and go: another one is asked."""
    end = time.monotonic() + seconds
    while True:
        try:
            return act(Connection())
        except (OSError, ValueError) as error:
            if time.monotonic() > end:
                raise
            print("again, after", repr(error), file=sys.stderr)
            time.sleep(0.5)


def set_up(connection):
    for name in ("orders", "bills"):
        connection.call(
            f"STREAM.CREATE.{name}",
            {"name": name, "subjects": [f"{name}.>"], "num_replicas": COPIES, "storage": "file",
             "retention": "limits", "duplicate_window": 3600 * 10**9},
        )
    connection.call(
        "CONSUMER.DURABLE.CREATE.orders.workers",
        {"stream_name": "orders", "config": {"durable_name": "workers", "ack_policy": "explicit",
         "ack_wait": WORK_S * 10**9, "deliver_policy": "all"}},
    )


def work(connection):
    set_up(connection)
    pathlib.Path("/tmp/working").touch()
    while True:
        wanted = json.dumps({"batch": 1, "expires": 2 * 10**9}).encode()
        order, status, back = connection.ask("$JS.API.CONSUMER.MSG.NEXT.orders.workers", wanted)
        if not back.startswith(ACKNOWLEDGE):
            # No order for two seconds, or a server that does not lead.
            if b" 408" not in status and b" 404" not in status:
                raise ConnectionError(repr(status))
            continue
        name = order.decode()
        connection.keep("bills." + name, b"billed by " + socket.gethostname().encode(), "bill-" + name)
        connection.ask(back, b"+ACK")


def place(prefix, number):
    def act(connection):
        while placed[0] < number:
            name = f"{prefix}-{placed[0]}"
            connection.keep("orders." + name, name.encode(), "order-" + name)
            placed[0] += 1

    placed = [0]
    again(act)
    print(placed[0], "orders are kept")


def bills(connection, prefix):
    found = connection.call("STREAM.INFO.bills", {"subjects_filter": "bills.>"})["state"].get("subjects", {})
    mine = {name: count for name, count in found.items() if name.startswith(f"bills.{prefix}-")}
    print(f"{len(mine)} orders, {sum(mine.values())} bills")


def waiting(connection):
    info = connection.call("CONSUMER.INFO.orders.workers")
    print(info["num_pending"] + info["num_ack_pending"])


def members(connection):
    cluster = connection.call("STREAM.INFO.orders")["cluster"]
    current = [peer["name"] for peer in cluster.get("replicas", []) if peer["current"]]
    print(len(current) + bool(cluster.get("leader")))


match sys.argv[1:]:
    case ["work"]:
        again(work, seconds=3600 * 24 * 365)
    case ["order", prefix, number]:
        place(prefix, int(number))
    case ["bills", prefix]:
        again(lambda connection: bills(connection, prefix))
    case ["waiting"]:
        again(waiting)
    case ["members"]:
        again(members)
