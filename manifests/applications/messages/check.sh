# Every order that is kept is billed, once: through the death of a server and of a worker with an order in hand.
. ../lib.sh

members=$([ "$MOMENT" = dead ] && echo 2 || echo 3)
eventually 180 "$members servers" has_pods "$members" app=nats
eventually 180 "two workers" has_pods 2 app=worker

program() { in_pod app=worker python3 /program/messages.py "$@"; }
is() { said=$(program "$2" ${3:-}) && [ "$said" = "$1" ] || { echo "$said"; return 1; }; }
eventually 60 "$members servers have every message" is "$members" members
placed() { program order "$MOMENT" 200; }
eventually 90 "two hundred orders are kept" placed
eventually 90 "each is billed once" is "200 orders, 200 bills" bills "$MOMENT"
eventually 60 "no order waits" is 0 waiting
[ "$MOMENT" = fresh ] || eventually 30 "the first bills are kept" is "200 orders, 200 bills" bills fresh
