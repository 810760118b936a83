# Caches become redis servers that answer; a change is followed; what a cache made goes with it; another operator
# goes on when the leader's node is dead.
. ../lib.sh

eventually 150 "an operator leads" pod app=operator,role=leader

cat >/tmp/cache-$MOMENT-$$ <<YAML
apiVersion: shop.example.com/v1
kind: Cache
metadata: {name: $MOMENT}
spec: {memory: 8mb}
YAML
made() { k apply -f "/tmp/cache-$MOMENT-$$"; }
eventually 30 "a cache is asked for" made
rm -f "/tmp/cache-$MOMENT-$$"
status() { [ "$(k get cache "$1" -o jsonpath='{.status.ready}')" = "$2" ]; }
eventually 60 "it is ready" status "$MOMENT" 1
answers() {
  in_pod "cache=$1" redis-cli -h "$1" set key value | grep -x OK
  in_pod "cache=$1" redis-cli -h "$1" config get maxmemory | grep -x 8388608
}
eventually 30 "it answers by its name, with its memory" answers "$MOMENT"

k scale cache "$MOMENT" --replicas=2
eventually 60 "a second replica is ready" status "$MOMENT" 2
# What somebody deletes comes back.
k delete deployment "$MOMENT" --wait=false
eventually 60 "its Deployment comes back" status "$MOMENT" 2
replicas() { [ "$(pods "cache=$1" | wc -l)" -eq 2 ]; }
eventually 60 "with its pods" replicas "$MOMENT"

if k apply -f - <<YAML 2>/dev/null
apiVersion: shop.example.com/v1
kind: Cache
metadata: {name: wrong}
spec: {memory: plenty}
YAML
then fail "a cache of the size plenty was taken"; fi

if [ "$MOMENT" != fresh ]; then
  eventually 120 "the first cache is whole" status fresh 2
  k delete cache "$MOMENT"
  gone() { [ -z "$(k get deployments,services -l "cache=$MOMENT" -o name)" ]; }
  eventually 60 "what it made is gone" gone
fi
