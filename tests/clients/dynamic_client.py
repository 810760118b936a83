"""Runs the tests that Kubernetes' Python client brings for its dynamic clients, against the server of KUBECONFIG.

They ask `kubernetes.e2e_test.base`, which the package does not bring, for the configuration: this is it.
"""

import os
import pathlib
import sys
import types

import kubernetes
import kubernetes.aio.client
import pytest

FILES = [
    "dynamic/test_client.py",
    "dynamic/test_discovery.py",
    "aio/dynamic/client_test.py",
    "aio/dynamic/discovery_test.py",
]
GONE = "apiextensions.k8s.io/v1beta1, which went in 1.22"
# Tests that no server of today passes, or not ours, and why.
SKIPPED = {
    "dynamic/test_client.py::TestDynamicClient::test_cluster_custom_resources": GONE,
    "dynamic/test_client.py::TestDynamicClient::test_namespaced_custom_resources": GONE,
    "dynamic/test_client.py::TestDynamicClient::test_async_namespaced_custom_resources": GONE,
    "dynamic/test_discovery.py::TestDiscoverer::test_cache_decoder_resource_and_subresource": "wants "
    "one version of Deployment; ours serves the old ones too",
    "aio/dynamic/client_test.py::TestDynamicClient::test_server_side_apply_api": "applies a "
    "Deployment to pods, which Kubernetes refuses too",
}


def configuration():
    config = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=config)
    return config


def configuration_aio():
    read, config = configuration(), kubernetes.aio.client.Configuration()
    for field in ("host", "ssl_ca_cert", "cert_file", "key_file"):
        setattr(config, field, getattr(read, field))
    return config


def provide(name, configure):
    base = types.ModuleType(f"{name}.base")
    base.get_e2e_configuration = configure
    package = types.ModuleType(name)
    package.base = base
    sys.modules.update({name: package, base.__name__: base})


def main():
    provide("kubernetes.e2e_test", configuration)
    provide("kubernetes.aio.e2e_test", configuration_aio)
    home = pathlib.Path(kubernetes.__file__).parent
    words = ["-q", "-p", "no:cacheprovider", "--tb=short", f"--rootdir={home}"]
    for test, why in SKIPPED.items():
        print(f"skipped: {test}: {why}")
        words.append(f"--deselect={test}")
    return pytest.main([*words, *sys.argv[1:], *(str(home / name) for name in FILES)])


sys.exit(main())
