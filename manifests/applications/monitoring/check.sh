# Targets are found and scraped: nodes, a DaemonSet behind a Service, pods by annotation. Targets that go
# are forgotten, and those that come are found.
. ../lib.sh

nodes=$(kubectl get nodes --no-headers | wc -l)
[ "$MOMENT" != dead ] || nodes=$((nodes - 1))
eventually 180 "the monitor runs" has_pods 1 app=victoria-metrics
eventually 180 "three pods to watch" has_pods 3 app=shop
eventually 120 "an exporter on each of $nodes nodes" has_pods "$nodes" app=node-exporter

# series EXPRESSION: what the monitor knows now, as text.
series() { in_pod app=victoria-metrics timeout 10 wget -qO- "http://127.0.0.1:8428/federate?max_lookback=10s&match%5B%5D=$1"; }
# up JOB NUMBER MATCH: so many targets of the job are scraped.
up() { found=$(series up) && [ "$(echo "$found" | grep "job=\"$1\"" | grep -E "$3" | grep -c '} 1 ')" -eq "$2" ] || { echo "$found"; return 1; }; }
eventually 60 "the API server is scraped" up apiservers 1 .
lists() { series apiserver_request_total | grep 'resource="pods"' | grep 'verb="LIST"' | grep -q '} [1-9]'; }
eventually 30 "its answers are counted" lists
eventually 90 "$nodes nodes are scraped through it" up nodes "$nodes" .
eventually 60 "$nodes exporters are scraped" up services "$nodes" 'service="node-exporter"'
eventually 60 "three pods are scraped" up pods 3 'app="shop"'

# What a pod counts arrives.
visited=$(pod app=shop)
address=$(k get pod "$visited" -o jsonpath='{.status.podIP}')
before=$(series shop_requests_total | grep "pod=\"$visited\"" | sed 's/.*} \([0-9]*\) .*/\1/')
in_pod app=victoria-metrics sh -ec "for i in 1 2 3 4 5; do timeout 5 wget -qO- http://$address:8080/; done" >/dev/null
counted() { series shop_requests_total | grep "pod=\"$visited\"" | grep "} $((${before:-0} + 5)) "; }
eventually 30 "five visits of $visited are counted" counted
