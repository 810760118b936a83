"""Runs builds: config maps labelled build=queued, whose `script` runs in a pod of its own with `image`.

What came of it is put into the config map: `result` (passed or failed), `log`. A runner that starts anew goes on with
the pods that it finds; a pod that is lost with its node is made again.
"""

import os
import time

import kubernetes
from kubernetes.client.exceptions import ApiException

NAMESPACE = os.environ["NAMESPACE"]
POLL_S = 1
LOG_BYTES = 64 * 1024

kubernetes.config.load_incluster_config()
api = kubernetes.client.CoreV1Api()


def pod_of(build, attempt):
    tolerate = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": build.metadata.name, "uid": build.metadata.uid}
    return {
        "metadata": {
            "name": f"{build.metadata.name}-{attempt}",
            "labels": {"app": "build", "build": build.metadata.name},
            "ownerReferences": [owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "tolerations": [tolerate],
            "containers": [{
                "name": "build",
                "image": build.data["image"],
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-ec", build.data["script"]],
                "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}},
            }],
        },
    }


def go_on(build, pods):
    """One step of one build."""
    name = build.metadata.name
    lost = [pod for pod in pods if pod.metadata.deletion_timestamp or pod.status.reason == "NodeLost"]
    living = [pod for pod in pods if pod not in lost]
    if not living:
        print(name, "begins")
        api.create_namespaced_pod(NAMESPACE, pod_of(build, len(lost)))
        return
    pod = living[0]
    if pod.status.phase not in ("Succeeded", "Failed"):
        return
    log = api.read_namespaced_pod_log(pod.metadata.name, NAMESPACE, limit_bytes=LOG_BYTES)
    result = "passed" if pod.status.phase == "Succeeded" else "failed"
    change = {"metadata": {"labels": {"build": "done"}}, "data": {"result": result, "log": log}}
    api.patch_namespaced_config_map(name, NAMESPACE, change)
    api.delete_namespaced_pod(pod.metadata.name, NAMESPACE)
    print(name, result)


def main():
    while True:
        try:
            builds = api.list_namespaced_config_map(NAMESPACE, label_selector="build=queued").items
            pods = api.list_namespaced_pod(NAMESPACE, label_selector="app=build").items
            for build in builds:
                go_on(build, [pod for pod in pods if pod.metadata.labels["build"] == build.metadata.name])
        except (ApiException, OSError) as error:
            print("again, after", error)
        time.sleep(POLL_S)


main()
