"""Buys at the shop RATE times a second; with an argument, asks so many times and counts who answered."""

import collections
import os
import sys
import threading
import time
import urllib.request

TIMEOUT_S = 3


def ask(path):
    """The track that answered. A connection for each request."""
    try:
        with urllib.request.urlopen(f"http://shop{path}", timeout=TIMEOUT_S) as answer:
            return answer.read().split()[0].decode()
    except OSError:
        return "failed"


def buy_for_ever(rate):
    while True:
        begun = time.monotonic()
        threading.Thread(target=ask, args=["/buy"], daemon=True).start()
        time.sleep(max(0, 1 / rate - (time.monotonic() - begun)))


if len(sys.argv) > 1:
    counts = collections.Counter(ask("/") for _ in range(int(sys.argv[1])))
    print(*(f"{track}={counts[track]}" for track in ("stable", "canary", "failed")))
else:
    rate = float(os.environ["RATE"])
    buy_for_ever(rate) if rate else threading.Event().wait()
