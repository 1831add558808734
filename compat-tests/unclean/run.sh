#!/usr/bin/env bash
# Brokers that die and come back with less than they had (KIP-966), controllers apart: who stays eligible, who leads again, and
# that nobody leads before it has all that was acknowledged.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/apart.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
[ "$BROKER" = ottla ] || { skip "unclean restarts" "this suite starts ottla only"; finish; }
fetch_kafka || exit 1
apt_need kcat
start_cluster_apart num.partitions=1 auto.create.topics.enable=false default.replication.factor=3 min.insync.replicas=2 \
    unclean.leader.election.interval.ms=1000 || exit 1

tool() { ktool "$1" --bootstrap-server "$BOOTSTRAP" "${@:2}"; }
TOPIC=t
K() { timeout 60 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 -t "$TOPIC" -p 0 "$@"; }
# is_now LEADER ISR ELR LAST_KNOWN : the partition as kafka-topics describes it; what may be anything is given as .*
is_now() {
    tool topics --describe --topic "$TOPIC" | tee /dev/stderr |
        grep -qE "Leader: $1"$'\t'".*Isr: $2"$'\t'"Elr: $3"$'\t'"LastKnownElr: $4\$"
}
# becomes LEADER ISR ELR LAST_KNOWN : soon, or shows what each node said last
becomes() { eventually 40 is_now "$@" || { for id in $NODE_IDS; do tail -n 2 "${NODE_DIR[id]}/broker.log"; done; return 1; }; }
LAST=0
# send : a hundred records more, all acknowledged by two brokers or more
send() {
    seq $((LAST + 1)) $((LAST + 100)) | K -P -X acks=all || return 1
    LAST=$((LAST + 100))
}
# holds : everything that was acknowledged, once, in order
holds() { diff <(K -C -q -o beginning -e) <(seq "$LAST") | head -n 5 >"$OTTLA_TMP/diff"; [ ! -s "$OTTLA_TMP/diff" ] || { cat "$OTTLA_TMP/diff"; return 1; }; }
# start ID : not yet ready, perhaps
start() { run_node "$1"; node_ready "$1"; }
segment() { echo "${NODE_DIR[$1]}/data/$TOPIC-0/00000000000000000000.log"; }
# halve ID : the replica loses the second half of its log
halve() { truncate -s $(($(stat -c %s "$(segment "$1")") / 2)) "$(segment "$1")"; }
wipe() { rm -r "${NODE_DIR[$1]}/data" && format_node "$1"; }
same_bytes() { cmp "$(segment 4)" "$(segment "$1")"; }
# refused : acks=all gets nowhere
refused() { ! echo lost | K -P -X acks=all -X message.timeout.ms=3000 2>"$OTTLA_TMP/refused" && grep -q 'Message timed out\|ot enough' "$OTTLA_TMP/refused"; }

echo "-- a follower"
tool topics --create --topic t --replica-assignment 4:5:6 >/dev/null
check "three are in sync" becomes 4 '[456],[456],[456]' '' ''
check "records are acknowledged" send
# Rule: unclean-restart
half_a_follower() {
    stop_node 6 KILL
    becomes 4 '[45],[45]' '' '' && send || return 1
    halve 6
    start 6 && becomes 4 '[456],[456],[456]' '' '' && eventually 20 same_bytes 6
}
check "loses half of its log and copies it again" half_a_follower

echo "-- the leader"
# Rule: unclean-restart
half_a_leader() {
    stop_node 4 KILL
    becomes 5 '[56],[56]' '' '' && send || return 1
    halve 4
    # The first of the replicas, and no leader with half a log.
    start 4 && becomes 5 '[456],[456],[456]' '' '' && eventually 20 same_bytes 5 && holds || return 1
    tool leader-election --election-type preferred --topic t --partition 0 && becomes 4 '[456],[456],[456]' '' '' && holds
}
check "is elected again once it has everything" half_a_leader

echo "-- eligible replicas"
# Rule: elr, unclean-restart
small_isr() {
    stop_node 6
    becomes 4 '[45],[45]' '' '' && send || return 1
    stop_node 5 KILL
    becomes 4 4 5 '' && refused
}
check "who leaves a small ISR stays eligible, and acks=all is refused" small_isr
# Rule: elr, unclean-restart
none_left() {
    stop_node 4
    # 5 was eligible, and was killed; 6 never was.
    start 5 && becomes none '' 4 4 && start 6 && eventually 20 registered 6 && is_now none '' 4 4
}
registered() { tool broker-api-versions | grep -q "(id: $1 "; }
check "nobody who may have lost records is elected" none_left
# Rule: elr, unclean-restart
clean_back() {
    start 4 && becomes 4 '[456],[456],[456]' '' '' && holds && send
}
check "the eligible replica that stopped cleanly leads again" clean_back

echo "-- a wiped disk"
# Rule: elr, unclean-restart
wiped_leader() {
    stop_node 6
    stop_node 5
    becomes 4 4 5 '' || return 1
    stop_node 4 KILL
    wipe 4 && start 4 && becomes none '' 5 '4?' || return 1
    start 5 && becomes 5 '.*5.*' '' '' && start 6 && becomes 5 '[456],[456],[456]' '' '' && eventually 20 same_bytes 5 && holds
}
check "never leads before it was filled again" wiped_leader

echo "-- all"
# the leader last
kill_one_by_one() {
    stop_node 6 KILL
    becomes '[45]' '[45],[45]' '' '' && send || return 1
    stop_node 5 KILL
    becomes 4 4 5 '' || return 1
    stop_node 4 KILL
}
# Rule: unclean-restart
one_by_one() {
    kill_one_by_one || return 1
    start 5 && start 6 && becomes none '' '4' 4 && eventually 20 registered 6 && is_now none '' '4' 4 || return 1
    start 4 && becomes 4 '[456],[456],[456]' '' '' && holds && send
}
check "are killed one by one: the last leader leads again" one_by_one
# Rule: unclean-restart
at_once() {
    send && kill -9 "${NODE_PID[4]}" "${NODE_PID[5]}" "${NODE_PID[6]}" || return 1
    for id in 4 5 6; do stop_node "$id" KILL 2>/dev/null; done
    for id in 4 5 6; do run_node "$id"; done
    becomes '[456]' '[456],[456],[456]' '' '' && holds && send && holds
}
check "are killed at once" at_once
# Rule: unclean-restart
last_is_wiped() {
    kill_one_by_one || return 1
    wipe 4 && start 4 && start 5 && start 6 && becomes none '' '' '' || return 1
    # Nobody is left that is known to have everything: an operator chooses, and chooses one that is not empty.
    stop_node 4
    tool leader-election --election-type unclean --topic t --partition 0 && becomes 5 '5.*' '' '' && eventually 20 holds || return 1
    start 4 && becomes 5 '[456],[456],[456]' '' '' && eventually 20 same_bytes 5 && holds
}
check "are killed, and the last leader is wiped: it does not lead" last_is_wiped

echo "-- a new leader's first moments (KIP-207)"
told() { PYTHONPATH=$OTTLA_ROOT/scripts/lib python3 -c 'import sys, wire; print(*wire.latest_offset(sys.argv[1], "w", 0))' "127.0.0.1:${NODE_PORT[5]}"; }
tells() { told && [ "$(told)" = "$1" ]; }
# Rule: follower-high-watermark
first_moments() {
    TOPIC=w
    tool topics --create --topic w --replica-assignment 4:5:6 >/dev/null && becomes 4 '4,5,6' '' '' || return 1
    kill -STOP "${NODE_PID[6]}"
    seq 10 | K -P -X acks=1 && eventually 5 same_bytes 5 || { kill -CONT "${NODE_PID[6]}"; return 1; }
    stop_node 4 KILL
    # 5 leads, and 6, in sync by name, has nothing: where consumers may read to is not known.
    eventually 8 tells '78 -1'
    local seen=$?
    kill -CONT "${NODE_PID[6]}"
    [ "$seen" = 0 ] && eventually 20 tells '0 10' && start 4
}
check "does not say an end that may be behind what was told" first_moments

echo "-- an operator who would rather lose records than wait"
# Rule: unclean-election
unclean_is_allowed() {
    TOPIC=u
    tool topics --create --topic u --replica-assignment 4:5:6 --config min.insync.replicas=1 >/dev/null && becomes 4 '4,5,6' '' '' || return 1
    stop_node 6
    becomes 4 '[45],[45]' '' '' && seq 100 | K -P -X acks=all || return 1
    stop_node 5
    becomes 4 4 '' '' || return 1
    stop_node 4 KILL
    start 6 && becomes none '' 4 4 && eventually 20 registered 6 || return 1
    # The controller has tried some times since.
    sleep 4
    is_now none '' 4 4 || return 1
    tool configs --alter --entity-type topics --entity-name u --add-config unclean.leader.election.enable=true &&
        eventually 10 is_now 6 6 '.*' '.*' && echo kept | K -P -X acks=all && [ "$(K -C -q -o beginning -e)" = kept ]
}
check "allows unclean elections on the running cluster: who lags leads" unclean_is_allowed

finish
