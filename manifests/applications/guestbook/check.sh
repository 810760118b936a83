# Guests sign the book, and each of the copies shows what they signed.
. ../lib.sh

eventually 180 "three frontends" has_pods 3 app=frontend
eventually 120 "two copies that follow" has_pods 2 role=follower

ask() { in_pod app=frontend curl -sS --fail --max-time 5 "$@"; }
guest="$MOMENT-$(date +%s)"
sign() { ask --data "$guest" http://frontend/guests; }
eventually 30 "a guest signs" sign

# Every copy, not only the one that answers first.
copied() {
  for copy in $(pods role=follower); do
    k exec "$copy" -- redis-cli lrange guests 0 -1 | grep -qx "$guest" || return 1
  done
}
eventually 30 "every copy has the guest" copied
shown() { ask http://frontend/guests | grep -qx "$guest"; }
eventually 20 "the guest is shown" shown
kept() { ask http://frontend/guests | grep -q '^fresh-'; }
eventually 20 "the first guest is shown" kept
