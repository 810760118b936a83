"""The part of the command `helm` that the transcripts use, over Helm 4 as a library (PyPI: helm-python-sdk).

Charts, hooks, waiting and release storage are Helm's own; only the command line and the tables are ours.
"""

import argparse
import json
import sys

import helm_python

# In seconds. What waits longer is broken.
TIMEOUT = 60
COLUMNS = ("name", "revision", "status", "chart")


def parser():
    words = argparse.ArgumentParser(prog="helm")
    words.add_argument("-n", "--namespace", default="default")
    commands = words.add_subparsers(dest="command", required=True)
    for command in ("install", "upgrade"):
        it = commands.add_parser(command)
        it.add_argument("name")
        it.add_argument("chart")
        it.add_argument("--set", action="append", default=[])
        it.add_argument("--wait", action="store_true")
        it.add_argument("--atomic", action="store_true", help="undo what fails")
        it.add_argument("--timeout", type=int, default=TIMEOUT)
        it.add_argument("--dry-run", choices=["client", "server"])
    commands.choices["install"].add_argument("--create-namespace", action="store_true")
    commands.choices["upgrade"].add_argument("--reuse-values", action="store_true")
    it = commands.add_parser("rollback")
    it.add_argument("name")
    it.add_argument("revision", type=int, nargs="?")
    it.add_argument("--wait", action="store_true")
    it = commands.add_parser("uninstall")
    it.add_argument("name")
    it.add_argument("--keep-history", action="store_true")
    it.add_argument("--wait", action="store_true")
    it = commands.add_parser("list")
    it.add_argument("-a", "--all", action="store_true")
    for command in ("status", "history", "values", "manifest", "test"):
        commands.add_parser(command).add_argument("name")
    return words


def told(release):
    chart = f"{release.get('chart_name', '')}-{release.get('chart_version', '')}"
    columns = {**release, "chart": release.get("chart", chart)}
    print("\t".join(str(columns.get(it, "")) for it in COLUMNS))


def values(expressions):
    result = {}
    for expression in expressions:
        merge(result, helm_python.parse_set_string(expression))
    return result


def merge(into, other):
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def write(config, words):
    options = {
        "timeout": words.timeout,
        "wait": "watcher" if words.wait else None,
        "rollback_on_failure": words.atomic,
        "dry_run": words.dry_run,
    }
    if words.command == "install":
        options["create_namespace"] = words.create_namespace
    else:
        options["reuse_values"] = words.reuse_values
    act = getattr(config, words.command)
    told(act(words.chart, words.name, values(words.set), **options))


def run(config, words):
    if words.command in ("install", "upgrade"):
        write(config, words)
    elif words.command == "rollback":
        wait = "watcher" if words.wait else None
        config.rollback(words.name, version=words.revision, timeout=TIMEOUT, wait=wait)
        told(config.status(words.name))
    elif words.command == "uninstall":
        wait = "watcher" if words.wait else None
        done = config.uninstall(
            words.name, keep_history=words.keep_history, timeout=TIMEOUT, wait=wait
        )
        told(done["release"])
        print(done["info"], end="")
    elif words.command == "list":
        for release in config.list(all_states=words.all):
            told(release)
    elif words.command == "history":
        for release in config.history(words.name):
            told(release)
    elif words.command == "values":
        print(json.dumps(config.get_values(words.name), sort_keys=True))
    elif words.command == "manifest":
        print(config.status(words.name)["manifest"])
    elif words.command == "test":
        done = config.test(words.name, timeout=TIMEOUT, logs=True)
        told(done["release"])
        print(done["logs"], end="")
    else:
        told(config.status(words.name))


def main():
    words = parser().parse_args()
    try:
        with helm_python.Config(namespace=words.namespace, qps=100, burst_limit=200) as config:
            run(config, words)
    except helm_python.HelmError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


main()
