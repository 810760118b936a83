# Six members keep 16384 slots; a node takes a master and a replica with it, and no key is lost.
. ../lib.sh

members=$([ "$MOMENT" = dead ] && echo 4 || echo 6)
eventually 180 "$members members are Ready" has_pods "$members" app=redis-cluster
formed() { k wait --for=condition=Complete job/form --timeout=1s; }
[ "$MOMENT" != fresh ] || eventually 120 "they have formed a cluster" formed

cli() { in_pod app=redis-cluster redis-cli -c "$@"; }
if [ "$MOMENT" = dead ]; then
  # Until then clients are sent to a master that does not answer, and wait for it.
  taken_over() {
    nodes=$(cli cluster nodes)
    [ "$(echo "$nodes" | grep -c ',fail ')" -eq 2 ] && [ "$(echo "$nodes" | grep -cE ' (myself,)?master ')" -eq 3 ] || { echo "$nodes"; return 1; }
  }
  eventually 90 "the dead members are known as such, and their slots taken over" taken_over
fi
whole() { [ "$(cli cluster info | tr -d '\r' | grep -cE '^cluster_(state:ok|slots_ok:16384)$')" -eq 2 ]; }
eventually 90 "every slot has a master" whole

write() { in_pod app=redis-cluster sh -ec "for i in \$(seq 60); do redis-cli -c set $MOMENT-\$i kept >/dev/null; done"; }
eventually 40 "sixty keys are written" write
read_back() {
  in_pod app=redis-cluster sh -ec "for i in \$(seq 60); do [ \"\$(redis-cli -c get $moment-\$i)\" = kept ]; done"
}
case $MOMENT in
fresh) moments="fresh" ;;
dead) moments="fresh dead" ;;
back) moments="fresh dead back" ;;
esac
for moment in $moments; do eventually 40 "the keys written $moment are there" read_back; done

if [ "$MOMENT" != dead ]; then
  all_linked() {
    nodes=$(cli cluster nodes)
    [ "$(echo "$nodes" | grep -c ' connected')" -eq 6 ] && ! echo "$nodes" | grep fail && [ "$(echo "$nodes" | grep -c slave)" -eq 3 ]
  }
  eventually 90 "three masters and three replicas" all_linked
  # A replica has every key of its master before a node may die.
  copied() {
    keys=$(for member in $(pods app=redis-cluster); do k exec "$member" -- redis-cli dbsize; done | awk '{all += $1} END {print all}')
    [ "$keys" -eq $((2 * 60 * $(echo $moments | wc -w))) ]
  }
  eventually 30 "each key is there twice" copied
fi
