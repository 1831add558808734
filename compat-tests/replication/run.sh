#!/usr/bin/env bash
# Replicas on three nodes in three racks, by stock tools and clients: throttled reassignments, consumers of their rack,
# group coordinators that move, topics that go and come back.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
[ "$BROKER" = ottla ] || { skip "three nodes" "this suite starts ottla only"; finish; }
fetch_kafka || exit 1
apt_need kcat
start_cluster num.partitions=1 auto.create.topics.enable=false default.replication.factor=3 offsets.topic.num.partitions=1 \
    offsets.topic.replication.factor=3 group.initial.rebalance.delay.ms=0 \
    replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector || exit 1

K() { timeout 60 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 "$@"; }
tool() { ktool "$1" --bootstrap-server "$BOOTSTRAP" "${@:2}"; }
describes() { tool topics --describe --topic "$1" | grep -qE -- "$2"; }
whole() { silent tool topics --describe --under-replicated-partitions; }
# metric ID NAME : a value of a node's /metrics, 0 if it is not there
metric() {
    python3 - "$(sed -n 's/^ottla.http.listener=//p' "${NODE_DIR[$1]}/server.properties")" "$2" <<-'END'
	import sys, urllib.request
	text = urllib.request.urlopen(f"http://{sys.argv[1]}/metrics").read().decode()
	values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == sys.argv[2]]
	print(round(float(values[0])) if values else 0)
	END
}

echo "-- racks"
racks() {
    local id
    for id in 1 2 3; do
        echo "broker.rack=rack-$id" >>"${NODE_DIR[id]}/server.properties"
        stop_node "$id"
        run_node "$id"
        node_ready "$id" || return 1
    done
}
check "each node restarts with a rack of its own" racks

echo "-- throttled reassignments (KIP-73)"
# assignment TOPIC BROKERS : a plan for partition 0
assignment() {
    printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"replicas":[%s]}]}' "$1" "$2" >"$OTTLA_TMP/$1.json"
}
reassign() { tool reassign-partitions --reassignment-json-file "$OTTLA_TMP/$1.json" "${@:2}"; }
MEGABYTE=1000000
# The highest rate at which node 1 sends to followers until the new one is in sync.
highest_rate() {
    local rate highest=0 end=$((SECONDS + 90))
    until [ "$(metric 1 'kafka_cluster_partition_insyncreplicascount{topic="moved",partition="0"}')" = 2 ]; do
        [ "$SECONDS" -lt "$end" ] || break
        rate=$(metric 1 kafka_server_leaderreplication_byte_rate)
        [ "$rate" -le "$highest" ] || highest=$rate
    done
    echo "$highest"
}
# Rule: throttle
throttle_holds() {
    local began sampler highest
    tool topics --create --topic moved --replica-assignment 1 >/dev/null || return 1
    yes "$(printf '%0999d' 0)" | head -n 9000 | K -P -t moved -p 0 || return 1
    assignment moved 1,2
    # From before the throttle on: a slow tool must not make it come too late.
    highest_rate >"$OTTLA_TMP/highest" &
    sampler=$!
    kill_at_exit "$sampler"
    began=$SECONDS
    reassign moved --execute --throttle $MEGABYTE | grep -q 'throttle' || return 1
    eventually 10 _says 'leader.replication.throttled.replicas=0:1' tool configs --describe --entity-type topics --entity-name moved || return 1
    eventually 10 _says "follower.replication.throttled.rate=$MEGABYTE" tool configs --describe --entity-type brokers --entity-name 2 || return 1
    wait "$sampler"
    highest=$(cat "$OTTLA_TMP/highest")
    echo "9 MB in $((SECONDS - began)) s, at most $highest bytes a second"
    # A second's worth may come at once, and a fetch is not cut.
    [ $((SECONDS - began)) -ge 4 ] && [ "$highest" -ge $((MEGABYTE / 2)) ] && [ "$highest" -le $((3 * MEGABYTE)) ]
}
not_throttled() { local out; out=$(tool configs --describe --entity-type "$1" --entity-name "$2") && ! grep throttled <<<"$out"; }
verify_clears() {
    eventually 20 reassign_done moved || return 1
    eventually 10 not_throttled topics moved && eventually 10 not_throttled brokers 1
}
reassign_done() { reassign "$1" --verify | grep -q 'is completed'; }
cancels() {
    assignment moved 1,2,3
    reassign moved --execute --throttle 1000 >/dev/null || return 1
    reassign moved --verify --preserve-throttles | grep -q 'still in progress' || return 1
    eventually 10 describes moved 'Replicas: 1,2,3' || return 1
    eventually 10 is 1 metric 1 kafka_server_replicamanager_reassigningpartitions || return 1
    reassign moved --cancel | grep -q 'Successfully cancelled' || return 1
    eventually 10 describes moved 'Replicas: 1,2[^,]' && eventually 10 not_throttled topics moved
}
check "execute --throttle bounds the rate" throttle_holds
check "verify says that it is complete and removes the throttle" verify_clears
check "cancel takes it back, throttle and all" cancels

echo "-- consumers of the follower in their rack (KIP-392)"
bytes_out() { metric "$1" 'kafka_server_brokertopicmetrics_bytesout_total{topic="racked"}'; }
# Rule: follower-reads
from_own_rack() {
    local before
    tool topics --create --topic racked --replica-assignment 1:2:3 >/dev/null || return 1
    yes "$(printf '%0999d' 0)" | head -n 1000 | K -P -t racked -p 0 || return 1
    before=$(bytes_out 1)
    KTOOL_SECONDS=40 tool console-consumer --topic racked --from-beginning --max-messages 1000 --timeout-ms 30000 \
        --consumer-property client.rack=rack-3 >"$OTTLA_TMP/racked" 2>&1 || { tail "$OTTLA_TMP/racked"; return 1; }
    echo "$(grep -c '^0*$' "$OTTLA_TMP/racked") records; leader: $(($(bytes_out 1) - before)) bytes, follower in the rack: $(bytes_out 3), other follower: $(bytes_out 2)"
    # The tool says more than the records on its standard output.
    [ "$(grep -c '^0*$' "$OTTLA_TMP/racked")" = 1000 ] && [ "$(bytes_out 3)" -ge 1000000 ] && [ "$(bytes_out 2)" = 0 ] &&
        [ $(($(bytes_out 1) - before)) -lt 100000 ]
}
check "a stock consumer reads from the replica in its rack" from_own_rack

echo "-- the coordinator of a group moves"
coordinator() { tool consumer-groups --describe --state --group moving 2>/dev/null | sed -n 's/^moving .*(\([123]\)).*/\1/p'; }
events() { grep -c "\"name\":\"$1\"" "$OTTLA_TMP/consumer.json"; }
# consumed N : the member has consumed and committed N records
consumed() { [ "$(sed -n 's/.*offsets_committed.*"offset":\([0-9]*\).*/\1/p' "$OTTLA_TMP/consumer.json" | tail -n 1)" = "$1" ]; }
send() { seq "$1" "$2" | K -P -t grouped -p 0 -X acks=all; }
# Rule: coordinators
moves() {
    local victim
    victim=$(coordinator)
    [ -n "$victim" ] || { echo "no coordinator"; return 1; }
    stop_node "$victim" "$1"
    send "$2" "$3" && eventually 30 consumed "$3" || return 1
    eventually 10 another "$victim" coordinator || return 1
    run_node "$victim"
    node_ready "$victim" && eventually 40 whole
}
not_rebalanced() {
    echo "$(events partitions_assigned) assignments, $(events partitions_revoked) revocations, $(grep -c '"success":false' "$OTTLA_TMP/consumer.json") failed commits"
    [ "$(events partitions_assigned)" = "$1" ] && [ "$(events partitions_revoked)" = "$2" ]
}
tool topics --create --topic grouped --partitions 1 --replication-factor 3 >/dev/null
"$KAFKA_HOME/bin/kafka-verifiable-consumer.sh" --bootstrap-server "$BOOTSTRAP" --topic grouped --group-id moving \
    >"$OTTLA_TMP/consumer.json" 2>"$OTTLA_TMP/consumer.err" &
consumer=$!
kill_at_exit "$consumer"
first() { send 1 100 && eventually 40 consumed 100; }
check "a member consumes and commits" first
assigned=$(events partitions_assigned) revoked=$(events partitions_revoked)
check "goes on when its coordinator is killed" moves KILL 101 200
check "goes on when its coordinator is stopped" moves TERM 201 300
check "the member was never sent away" not_rebalanced "$assigned" "$revoked"
kill "$consumer"
wait "$consumer" 2>/dev/null
kept() { [ "$(tool consumer-groups --describe --group moving 2>/dev/null | awk '$2 == "grouped" { print $4, $6 }')" = "300 0" ]; }
check "its committed offset is there" eventually 20 kept

echo "-- topics that are deleted and created again"
# What a topic holds, as all its nodes tell: an election may come with each round.
reads() { K -C -q -t "$1" -p 0 -o beginning -e | sort -u | head -n 3 | tr '\n' ' '; }
has_records() { [ "$(K -Q -t "$1:0:-1" | sed 's/.* offset //')" -gt 0 ]; }
# Rule: topic-deletion
again_under_load() {
    local round writer i
    for round in 1 2 3 4; do
        eventually 20 tool topics --create --topic again --partitions 1 --replication-factor 3 >/dev/null 2>&1 || return 1
        [ "$round" != 4 ] || break
        mkfifo "$OTTLA_TMP/round-$round"
        # No retry outlives the round: what is not sent within a second is given up.
        timeout 20 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 -P -t again -p 0 -X acks=all -X message.timeout.ms=1000 \
            <"$OTTLA_TMP/round-$round" >/dev/null 2>&1 &
        writer=$!
        (for ((i = 0; i < 200; i++)); do yes "round-$round" | head -n 100; sleep 0.01; done) \
            >"$OTTLA_TMP/round-$round" 2>/dev/null &
        eventually 20 has_records again && tool topics --delete --topic again >/dev/null || return 1
        kill "$writer" 2>/dev/null
        wait
    done
    yes "round-4" | head -n 500 | K -P -t again -p 0 -X acks=all || return 1
    echo "holds: $(reads again)"
    [ "$(reads again)" = "round-4 " ] && [ "$(K -C -q -t again -p 0 -o beginning -e | wc -l)" = 500 ] && eventually 30 whole
}
check "nothing of an earlier topic under load is left" again_under_load
# Rule: topic-deletion
stray() {
    tool topics --create --topic stray --replica-assignment 1:2:3 >/dev/null && yes old | head -n 100 | K -P -t stray -p 0 || return 1
    stop_node 3
    tool topics --delete --topic stray >/dev/null || return 1
    eventually 20 tool topics --create --topic stray --replica-assignment 3:1 >/dev/null 2>&1
    run_node 3
    node_ready 3 && eventually 40 whole || return 1
    eventually 20 describes stray 'Leader: [13]' || return 1
    yes new | head -n 10 | K -P -t stray -p 0 -X acks=all || return 1
    ls "${NODE_DIR[3]}/data" | grep stray
    [ "$(reads stray)" = "new " ] && ls "${NODE_DIR[3]}/data" | grep -q '^stray-0\..*-stray$'
}
check "a log whose topic went while its node was down is put aside" stray

finish
