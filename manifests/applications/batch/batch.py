"""A pipeline over a queue in redis: `split RUN` fills it, `work RUN SECONDS` empties it.

A worker takes a number by moving it to a list of its own, which others put back when the worker no longer says that
it lives: a number is lost with no worker.
"""

import os
import sys
import time

import redis

NUMBERS = 90
# Seconds for which a worker is believed to live.
LIFE_S = 8

store = redis.Redis(host="queue", socket_timeout=5, decode_responses=True,
                    retry_on_error=[redis.ConnectionError, redis.TimeoutError])


def split(run):
    index, of = int(os.environ["JOB_COMPLETION_INDEX"]), 3
    mine = [number for number in range(NUMBERS) if number % of == index]
    # An index that runs again adds nothing twice.
    with store.pipeline() as adds:
        if store.set(f"{run}:split:{index}", "begun", nx=True):
            adds.rpush(f"{run}:queue", *mine)
            adds.execute()
    print("index", index, "added", len(mine))


def work(run, seconds):
    me = os.environ["NAME"]
    store.sadd(f"{run}:workers", me)
    while store.hlen(f"{run}:results") < NUMBERS:
        store.set(f"{run}:lives:{me}", "yes", ex=LIFE_S)
        number = store.lmove(f"{run}:queue", f"{run}:taken:{me}")
        if number is None:
            take_back(run)
            time.sleep(0.2)
            continue
        time.sleep(seconds)
        store.hset(f"{run}:results", number, int(number) ** 2)
        store.lrem(f"{run}:taken:{me}", 1, number)
    print(me, "sees nothing left to do")


def take_back(run):
    for worker in store.smembers(f"{run}:workers"):
        if not store.exists(f"{run}:lives:{worker}"):
            while store.lmove(f"{run}:taken:{worker}", f"{run}:queue"):
                print("took back what", worker, "had")


match sys.argv[1:]:
    case ["split", run]:
        split(run)
    case ["work", run, seconds]:
        work(run, float(seconds))
