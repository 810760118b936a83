# Three members keep a quorum; what two of them agreed on without the third, the third has when it is back.
. ../lib.sh

members=$([ "$MOMENT" = dead ] && echo 2 || echo 3)
eventually 180 "$members members are Ready" has_pods "$members" app=etcd

ctl() { in_pod app=etcd etcdctl --command-timeout=5s "$@"; }
all_started() { [ "$(ctl member list | grep -c ', started,')" -eq 3 ]; }
eventually 60 "all three are members" all_started
healthy() { [ "$(ctl endpoint health --cluster 2>&1 | grep -c 'is healthy')" -eq "$members" ]; }
eventually 60 "$members endpoints are healthy" healthy

put() { ctl put "written-$MOMENT" kept; }
eventually 30 "a key is written by a quorum" put
# Through the Service: by whichever member.
through_service() { ctl --endpoints=http://etcd-client:2379 get --print-value-only "written-$MOMENT" | grep -x kept; }
eventually 30 "it is read through the Service" through_service

# From what each member has itself, not from its leader.
each_has() {
  for member in $(pods app=etcd); do
    for key in $keys; do
      k exec "$member" -- etcdctl get --consistency=s --print-value-only "$key" | grep -qx kept || return 1
    done
  done
}
case $MOMENT in
fresh) keys="written-fresh" ;;
dead) keys="written-fresh written-dead" ;;
back) keys="written-fresh written-dead written-back" ;;
esac
eventually 30 "each member has $keys" each_has
