# The canary has its share of the requests, load scales the stable track up, and its end scales it down.
. ../lib.sh

eventually 180 "two stable pods" has_pods 2 app=shop,track=stable
eventually 120 "a canary" has_pods 1 app=shop,track=canary
eventually 120 "customers" has_pods 1 app=load

# share LEAST MOST: of 300 requests, how many in a hundred the canary answers; none fails.
share() {
  said=$(in_pod app=load python3 /program/load.py 300)
  echo "$said"
  canary=$(echo "$said" | sed 's/.*canary=\([0-9]*\).*/\1/')
  [ "${said##*failed=}" = 0 ] && [ "$canary" -ge $((3 * $1)) ] && [ "$canary" -le $((3 * $2)) ]
}
# A dead node's pods are in the Service until its death is noticed.
eventually 120 "one request of three goes to the canary" share 22 45

measured() { k get hpa shop -o jsonpath='{.status.currentMetrics[0].resource.current.averageUtilization}' | grep -q .; }
eventually 90 "the autoscaler sees the pods' CPU" measured
k set env deployment/load RATE=90
more() { [ "$(pods app=shop,track=stable | wc -l)" -ge 3 ]; }
eventually 150 "load brings more stable pods" more
k set env deployment/load RATE=0
eventually 200 "without load there are two again" has_pods 2 app=shop,track=stable

case $MOMENT in
fresh)
  # The canary becomes everything, a step at a time, and goes back.
  k scale deployment/shop-canary --replicas=2
  eventually 60 "two canaries" has_pods 2 app=shop,track=canary
  eventually 60 "one request of two goes to the canary" share 38 62
  k scale deployment/shop-canary --replicas=1
  eventually 60 "one canary" has_pods 1 app=shop,track=canary
  ;;
esac
