"""Reads the logs of all containers of its node and sends each line with its pod's namespace, name and labels.

The part of Fluentd: files are found in /var/log/containers, whose names say pod, namespace, container and the
container's id. A line is what the Engine writes (JSON), or what container runtimes of Kubernetes write.
Where it was in each file is kept by the collector, so that a shipper that starts anew sends no line twice.
"""

import glob
import json
import os
import re
import time

import kubernetes
import redis

NAME = re.compile(r"/var/log/containers/([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")
POLL_S = 0.5
MOST_BYTES = 1 << 20
NODE = os.environ["NODE"]

kubernetes.config.load_incluster_config()
api = kubernetes.client.CoreV1Api()
collector = redis.Redis(host="collector", socket_timeout=5, decode_responses=True)


def text_of(line):
    if line.startswith(b"{"):
        return json.loads(line)["log"].rstrip("\n")
    # TIME STREAM F|P TEXT
    return line.decode(errors="replace").split(" ", 3)[3]


def pods():
    """The pods of this node, by namespace and name."""
    found = api.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={NODE}")
    return {(pod.metadata.namespace, pod.metadata.name): pod for pod in found.items}


def ship(path, container, pod, offset):
    """Sends the whole lines that are new; where the next one begins."""
    size = os.stat(path).st_size
    # A file that became shorter was rotated.
    offset = offset if offset <= size else 0
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(MOST_BYTES)
    lines = data[: data.rfind(b"\n") + 1]
    if not lines:
        return offset
    with collector.pipeline() as sends:
        for line in lines.splitlines():
            record = {"namespace": pod.metadata.namespace, "pod": pod.metadata.name,
                      "container": container, "node": NODE, "log": text_of(line)}
            record |= {f"label.{name}": value for name, value in (pod.metadata.labels or {}).items()}
            sends.xadd(f"logs:{pod.metadata.namespace}", record, maxlen=100_000)
        sends.hset(f"offsets:{NODE}", path, offset + len(lines))
        sends.execute()
    return offset + len(lines)


def main():
    known, offsets = {}, None
    while True:
        try:
            if offsets is None:
                offsets = {path: int(at) for path, at in collector.hgetall(f"offsets:{NODE}").items()}
            files = {path: NAME.fullmatch(path) for path in glob.glob("/var/log/containers/*.log")}
            mine = {path: found.groups() for path, found in files.items() if found}
            if any((namespace, pod) not in known for pod, namespace, _, _ in mine.values()):
                known = {key: None for key in known} | pods()
            for path, (name, namespace, container, _) in mine.items():
                pod = known.setdefault((namespace, name), None)
                # Of another node that writes into the same directory, or gone already.
                if pod is not None:
                    offsets[path] = ship(path, container, pod, offsets.get(path, 0))
        except (redis.RedisError, OSError, kubernetes.client.rest.ApiException) as error:
            print("again, after", str(error)[:300].replace("\n", " "))
            offsets = None
        time.sleep(POLL_S)


main()
