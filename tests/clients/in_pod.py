"""What programs of the Python client do inside of a pod: find the server, watch, write, exec, read logs."""

import socket
import threading

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

PATIENCE_S = 30

config.load_incluster_config()
api = client.CoreV1Api()
with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
    namespace = file.read()
print("incluster", api.api_client.configuration.host)

name = "written-in-a-pod"
since = api.list_namespaced_config_map(namespace).metadata.resource_version


def write():
    api.create_namespaced_config_map(namespace, {"metadata": {"name": name}, "data": {"a": "1"}})
    api.patch_namespaced_config_map(name, namespace, {"data": {"a": "2"}})
    api.delete_namespaced_config_map(name, namespace)


threading.Thread(target=write).start()
seen = []
events = watch.Watch()
for event in events.stream(api.list_namespaced_config_map, namespace, resource_version=since, timeout_seconds=PATIENCE_S):
    if event["object"].metadata.name == name:
        seen.append(event["type"])
    if event["type"] == "DELETED":
        events.stop()
print("watched", *seen)

me = socket.gethostname()
command = ["sh", "-c", "echo $((6 * 7)); exit 0"]
# In its own container, by WebSocket.
said = stream(api.connect_get_namespaced_pod_exec, me, namespace, command=command, stdout=True, stderr=True)
print("exec said", said.strip())
log = api.read_namespaced_pod_log(me, namespace, tail_lines=10)
print("log has", log.split()[0])
try:
    api.list_namespaced_secret(namespace)
except ApiException as error:
    print("secrets", error.status, error.reason)
