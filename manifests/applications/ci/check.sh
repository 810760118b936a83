# Builds run in pods that the runner makes with its account: one passes, one fails, one outlives its node.
. ../lib.sh

eventually 150 "a runner" has_pods 1 app=runner

# build NAME SCRIPT
build() {
  k create configmap "$1" --from-literal=image=tools:latest --from-literal=script="$2" || return 1
  k label configmap "$1" build=queued
}
came_to() {
  said=$(k get configmap "$1" -o jsonpath='{.data.result}: {.data.log}')
  echo "$said" | grep -x "$2"
}
build "good-$MOMENT" 'echo compiled $((6 * 7))'
build "bad-$MOMENT" 'echo no such file; exit 3'
eventually 60 "a build passes" came_to "good-$MOMENT" 'passed: compiled 42'
eventually 60 "a build fails" came_to "bad-$MOMENT" 'failed: no such file'
no_pods() { [ -z "$(k get pods -l "app=build,build in (good-$MOMENT,bad-$MOMENT)" -o name)" ]; }
eventually 30 "their pods are gone" no_pods

# The account may do this here, and nothing elsewhere.
may() { timeout 20 kubectl auth can-i "$1" "$2" --namespace "$3" --as="system:serviceaccount:$NAMESPACE:runner"; }
[ "$(may create pods "$NAMESPACE")" = yes ] || fail "the runner may not make pods"
[ "$(may create pods default || true)" = no ] || fail "the runner may make pods elsewhere"
[ "$(may get secrets "$NAMESPACE" || true)" = no ] || fail "the runner may read secrets"

# As many as there are nodes, so that one is on the node that dies.
case $MOMENT in
fresh)
  for number in 1 2 3 4; do build "long-$number" 'sleep 25; echo done'; done
  running() { has_pods 4 app=build; }
  eventually 30 "four long builds run" running
  ;;
*) for number in 1 2 3 4; do eventually 120 "long build $number passes" came_to "long-$number" 'passed: done'; done ;;
esac
