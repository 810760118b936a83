# What the checks share. A check is run as `sh -eu check.sh fresh|dead|back` in its directory, with NAMESPACE, and
# NODE: the node that is dead, or was.

MOMENT=$1

# kubectl in the application's namespace; one that hangs must not hang the check.
k() { timeout 60 kubectl --namespace "$NAMESPACE" "$@"; }

fail() {
  echo "$*"
  exit 1
}

# eventually SECONDS WHAT COMMAND…: asks again until the command succeeds.
eventually() {
  end=$(($(date +%s) + $1))
  what=$2
  shift 2
  until said=$("$@" 2>&1); do
    [ "$(date +%s)" -lt "$end" ] || fail "$what: not so after all: $(echo "$said" | tail -n 3 | tr '\n' ' ')"
    sleep 1
  done
  echo "$(date +%T) $what"
}

# The pods of a selector that are Ready and not on a dead node, one a line.
pods() {
  dead=$([ "$MOMENT" = dead ] && echo "$NODE" || true)
  k get pods -l "$1" -o jsonpath='{range .items[*]}{.metadata.name} {.spec.nodeName} {.status.conditions[?(@.type=="Ready")].status} {.metadata.deletionTimestamp}{"\n"}{end}' |
    awk -v dead="$dead" 'NF == 3 && $2 != dead && $3 == "True" {print $1}'
}

# The first of them.
pod() {
  found=$(pods "$1" | head -n 1)
  [ -n "$found" ] || { echo "no pod of $1 is Ready" >&2; return 1; }
  echo "$found"
}

# in_pod SELECTOR COMMAND…
in_pod() {
  into=$(pod "$1") || return 1
  shift
  k exec "$into" -- "$@"
}

# has_pods NUMBER SELECTOR: as many are Ready.
has_pods() { [ "$(pods "$2" | wc -l)" -eq "$1" ] || { k get pods -l "$2" -o wide; return 1; }; }

node_is_lost() { [ "$(kubectl get node "$NODE" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" != True ]; }
