"""Keeps a Deployment and a Service for each Cache. Of several operators the one that holds the lease acts.

The leader's pod is labelled role=leader. The Deployment's readiness comes back as the Cache's status.
"""

import datetime
import json
import os
import threading
import time

import kubernetes
from kubernetes.client.exceptions import ApiException

GROUP, VERSION, PLURAL = "shop.example.com", "v1", "caches"
NAMESPACE, NAME = os.environ["NAMESPACE"], os.environ["NAME"]
LEASE_S, RENEW_S = 10, 2
WATCH_S = 30

kubernetes.config.load_incluster_config()
client = kubernetes.client
caches, apps, core = client.CustomObjectsApi(), client.AppsV1Api(), client.CoreV1Api()
leases = client.CoordinationV1Api()


def apply(path, body):
    """Server-side apply: what others own stays theirs."""
    query = [("fieldManager", "operator"), ("force", "true")]
    header = {"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}
    caches.api_client.call_api(
        f"{path}/{body['metadata']['name']}", "PATCH", {}, query, header, body=json.dumps(body),
        auth_settings=["BearerToken"], response_type="object",
    )


def keep(cache):
    name, spec = cache["metadata"]["name"], cache["spec"]
    owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Cache", "name": name,
             "uid": cache["metadata"]["uid"], "controller": True, "blockOwnerDeletion": False}
    labels = {"app": "cache", "cache": name}
    meta = {"name": name, "labels": labels, "ownerReferences": [owner]}
    container = {
        "name": "redis", "image": "redis:latest", "imagePullPolicy": "IfNotPresent",
        "args": ["redis-server", "--protected-mode", "no", "--maxmemory", spec["memory"]],
        "ports": [{"name": "redis", "containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 1},
    }
    unreachable = {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                   "effect": "NoExecute", "tolerationSeconds": 2}
    template = {"metadata": {"labels": labels},
                "spec": {"containers": [container], "tolerations": [unreachable],
                         "terminationGracePeriodSeconds": 1}}
    apply(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments", {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
        "spec": {"replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": template},
    })
    apply(f"/api/v1/namespaces/{NAMESPACE}/services", {
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"selector": labels, "ports": [{"port": 6379, "targetPort": "redis"}]},
    })
    report(cache)


def report(cache):
    name = cache["metadata"]["name"]
    ready = apps.read_namespaced_deployment(name, NAMESPACE).status.ready_replicas or 0
    status = {"ready": ready, "observedGeneration": cache["metadata"]["generation"]}
    if cache.get("status") != status:
        caches.patch_namespaced_custom_object_status(
            GROUP, VERSION, NAMESPACE, PLURAL, name, {"status": status})


def all_caches():
    return caches.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)["items"]


def follow(what, act, *arguments):
    """Everything that is there, then what changes, for ever."""
    while True:
        try:
            for cache in all_caches():
                act(cache)
            for _ in kubernetes.watch.Watch().stream(what, *arguments, timeout_seconds=WATCH_S):
                for cache in all_caches():
                    act(cache)
        except (ApiException, OSError, client.rest.urllib3.exceptions.HTTPError) as error:
            print("again, after", str(error)[:300].replace("\n", " "))
            time.sleep(1)


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def take_lease():
    """True while it is this operator's. It is given up when it cannot be renewed in time."""
    try:
        lease = leases.read_namespaced_lease("operator", NAMESPACE)
    except ApiException as error:
        if error.status != 404:
            raise
        spec = client.V1LeaseSpec(holder_identity=NAME, lease_duration_seconds=LEASE_S,
                                  acquire_time=now(), renew_time=now(), lease_transitions=0)
        leases.create_namespaced_lease(
            NAMESPACE, client.V1Lease(metadata=client.V1ObjectMeta(name="operator"), spec=spec))
        return True
    spec = lease.spec
    if spec.holder_identity != NAME:
        if now() - spec.renew_time < datetime.timedelta(seconds=LEASE_S):
            return False
        spec.holder_identity, spec.acquire_time = NAME, now()
        spec.lease_transitions = (spec.lease_transitions or 0) + 1
    spec.renew_time = now()
    # A lease that somebody else has changed meanwhile is a conflict.
    leases.replace_namespaced_lease("operator", NAMESPACE, lease)
    return True


def lead():
    core.patch_namespaced_pod(NAME, NAMESPACE, {"metadata": {"labels": {"role": "leader"}}})
    print("leads")
    watched = [
        (caches.list_namespaced_custom_object, keep, GROUP, VERSION, NAMESPACE, PLURAL),
        (apps.list_namespaced_deployment, report, NAMESPACE),
    ]
    for what in watched:
        threading.Thread(target=follow, args=what, daemon=True).start()


def main():
    leads, renewed = False, time.monotonic()
    while True:
        try:
            mine = take_lease()
            if mine and not leads:
                lead()
            if leads and not mine:
                raise SystemExit("the lease is another's")
            leads, renewed = mine, time.monotonic()
        except (ApiException, OSError, client.rest.urllib3.exceptions.HTTPError) as error:
            print("no lease:", str(error)[:300].replace("\n", " "))
            if leads and time.monotonic() - renewed > LEASE_S:
                raise SystemExit("the lease has run out")
        time.sleep(RENEW_S)


main()
