# What a container writes arrives with the name, the node and the labels of its pod: from every node, once, and also
# what was written before the collector or a shipper was there.
. ../lib.sh

nodes=$(kubectl get nodes --no-headers | wc -l)
[ "$MOMENT" != dead ] || nodes=$((nodes - 1))
eventually 180 "a collector" has_pods 1 app=collector
eventually 180 "three talkers" has_pods 3 app=talker
eventually 120 "$nodes shippers" has_pods "$nodes" app=shipper

word="$MOMENT-$(date +%s)"
for talker in $(pods app=talker); do
  k exec "$talker" -- sh -c "echo $word-$talker >/tmp/say"
done
# A record is printed as a field a line, its value below.
records() { in_pod app=collector redis-cli --raw xrange logs:logs - +; }
arrived() {
  all=$(records)
  for talker in $(pods app=talker); do
    node=$(k get pod "$talker" -o jsonpath='{.spec.nodeName}')
    record=$(echo "$all" | grep -x -B 9 -A 10 "$word-$talker") || return 1
    for wanted in "$talker" "$node" talker green logs; do
      echo "$record" | grep -qx "$wanted" || { echo "no $wanted in $record"; return 1; }
    done
    [ "$(echo "$all" | grep -cx "$word-$talker")" -eq 1 ] || { echo "$talker is there more than once"; return 1; }
  done
}
eventually 60 "what each talker said has arrived once, with its pod" arrived
begun() { [ "$(records | grep -cx begins)" -ge 3 ]; }
eventually 30 "with what was said before" begun
