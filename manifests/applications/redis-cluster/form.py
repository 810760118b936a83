"""Makes a cluster of six redis: three masters on three nodes, and of each a replica on another node."""

import itertools
import os
import time

import kubernetes
import redis

MASTERS = 3
SIZE = 2 * MASTERS
SLOTS = 16384
TIMEOUT_S = 120


def until(what, condition):
    end = time.monotonic() + TIMEOUT_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not after {TIMEOUT_S} s")
        time.sleep(0.5)
    return value


def members():
    """Address and node of each pod, when all are Ready."""
    pods = kubernetes.client.CoreV1Api().list_namespaced_pod(
        os.environ["NAMESPACE"], label_selector="app=redis-cluster"
    )
    ready = [
        (pod.status.pod_ip, pod.spec.node_name)
        for pod in pods.items
        for condition in pod.status.conditions or []
        if condition.type == "Ready" and condition.status == "True"
    ]
    return sorted(ready) if len(ready) == SIZE else None


def chosen(found):
    """The masters, no two on a node, and for each a replica that is not on its node, where nodes allow it."""

    def score(order):
        masters, replicas = order[:MASTERS], order[MASTERS:]
        apart = sum(master[1] != replica[1] for master, replica in zip(masters, replicas))
        return len({node for _, node in masters}), apart

    best = max(itertools.permutations(found), key=score)
    return best[:MASTERS], best[MASTERS:]


def main():
    kubernetes.config.load_incluster_config()
    masters, replicas = chosen(until("six pods are Ready", members))
    client = {ip: redis.Redis(host=ip, decode_responses=True) for ip, _ in masters + replicas}

    def ask(ip, *words):
        return client[ip].execute_command("CLUSTER", *words)

    first = masters[0][0]
    info = {ip: client[ip].execute_command("CLUSTER INFO") for ip in client}
    if info[first].get("cluster_state") == "ok":
        return print("there is a cluster")
    share = SLOTS // MASTERS
    for index, (ip, _) in enumerate(masters):
        last = SLOTS - 1 if index == MASTERS - 1 else (index + 1) * share - 1
        if info[ip].get("cluster_slots_assigned") == "0":
            ask(ip, "ADDSLOTSRANGE", index * share, last)
            ask(ip, "SET-CONFIG-EPOCH", index + 1)
    for ip in client:
        ask(first, "MEET", ip, 6379)
    ids = {ip: client[ip].execute_command("CLUSTER MYID") for ip in client}
    for (master, _), (replica, _) in zip(masters, replicas):
        until(f"{replica} knows {master}", lambda: ids[master] in str(ask(replica, "NODES")))
        until(f"{replica} copies {master}", lambda: ask(replica, "REPLICATE", ids[master]))
    for ip in client:
        known = lambda: client[ip].execute_command("CLUSTER INFO")
        until(f"{ip} agrees", lambda: known()["cluster_state"] == "ok" and known()["cluster_known_nodes"] == str(SIZE))
    print("masters", masters, "replicas", replicas)


main()
