# A pipeline of two Jobs: an Indexed one fills a queue, workers empty it. One run is under way when the node dies, and
# all of its results are there.
. ../lib.sh

eventually 180 "a queue" has_pods 1 app=queue
step() { sed "s/RUN/$2/g; s/\"SECONDS\"/\"$3\"/" "$1.yaml" | k apply -f -; }
complete() { k wait --for=condition=Complete "job/$1" --timeout=1s; }
results() { [ "$(in_pod app=queue redis-cli hlen "$1:results")" = 90 ]; }
# The sum of the squares of 0 to 89.
sum() { [ "$(in_pod app=queue redis-cli --raw hvals "$1:results" | awk '{all += $1} END {print all}')" = 238965 ]; }

if [ "$MOMENT" != dead ]; then
  step split "$MOMENT" 0
  eventually 60 "three indexes have split the work" complete "split-$MOMENT"
  indexes() { [ "$(k get job "split-$MOMENT" -o jsonpath='{.status.completedIndexes}')" = 0-2 ]; }
  eventually 10 "each of them once" indexes
  step work "$MOMENT" 0.1
  eventually 90 "the workers are done" complete "work-$MOMENT"
  eventually 10 "every result is there" results "$MOMENT"
  eventually 10 "and right" sum "$MOMENT"
fi
case $MOMENT in
fresh)
  # Two seconds a number: half a minute and more with four workers.
  step split slow 0
  eventually 60 "another run is split" complete split-slow
  step work slow 2
  eventually 60 "four workers are at it" has_pods 4 app=worker,run=slow
  ;;
dead) eventually 200 "the run that lost a worker has every result" results slow ;;
back) eventually 60 "and it is complete" complete work-slow ;;
esac
