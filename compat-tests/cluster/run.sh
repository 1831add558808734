#!/usr/bin/env bash
# Three nodes of one cluster, asked by Apache Kafka's own tools: the quorum, the brokers, and what happens when the active
# controller is killed, stopped under control, or comes back.
source "$(dirname "$0")/../../scripts/lib/env.sh"
fetch_kafka || exit 1
QUORUM=static start_cluster num.partitions=3 auto.create.topics.enable=false offsets.topic.num.partitions=3 || exit 1

says() {
    local name=$1 regex=$2
    shift 2
    check "$name" _says "$regex" "$@"
}
_says() {
    local regex=$1 out line
    shift
    out=$("$@" 2>&1 </dev/null) || { echo "$out"; return 1; }
    while IFS= read -r line; do
        grep -qE -- "$line" <<<"$out" || { printf '%s\n(missing: %s)\n' "$out" "$line"; return 1; }
    done <<<"$regex"
}
# at ID TOOL ARGS... : a tool that knows one node only
at() { ktool "$2" --bootstrap-server "127.0.0.1:${NODE_PORT[$1]}" "${@:3}"; }
leader() { at "$1" metadata-quorum describe --status | sed -n 's/^LeaderId: *//p'; }
other() { for id in 1 2 3; do [ "$id" = "$1" ] || echo "$id"; done | head -n 1; }
# eventually SECONDS COMMAND... : until it succeeds
eventually() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do [ "$SECONDS" -lt "$end" ] || return 1; done
}
_shows() { _says "$@" >/dev/null; }

echo "-- the quorum"
says "metadata-quorum: status" $'LeaderId: +[123]\nLeaderEpoch: +[1-9]\nCurrentVoters: .*"id": 1.*"id": 2.*"id": 3' \
    at 1 metadata-quorum describe --status
for id in 1 2 3; do
    says "metadata-quorum: replication, asked at node $id" $'^1 .*(Leader|Follower)\n^2 .*(Leader|Follower)\n^3 .*(Leader|Follower)' \
        at "$id" metadata-quorum describe --replication
done
says "metadata-quorum: at the controllers" 'LeaderId: +[123]' \
    ktool metadata-quorum --bootstrap-controller "127.0.0.1:${NODE_CONTROLLER_PORT[1]}" describe --status
says "cluster: one id on all nodes" "Cluster ID: $(sed -n 's/^cluster.id=//p' "${NODE_DIR[1]}/data/meta.properties")" \
    ktool cluster cluster-id --bootstrap-server "127.0.0.1:${NODE_PORT[2]}"
says "features: finalized on all nodes" 'metadata.version.*FinalizedVersionLevel: 4' at 3 features describe

echo "-- administration at any node"
for id in 1 2 3; do
    says "topics: create at node $id" "Created topic at-$id" at "$id" topics --create --topic "at-$id" \
        --partitions 3 --replication-factor 3
done
says "topics: every node knows them" $'at-1\nat-2\nat-3' at 2 topics --list
says "topics: replicas on all nodes" 'Replicas: [123],[123],[123].Isr: [123],[123],[123]' at 1 topics --describe --topic at-3
says "configs: alter at one node" 'Completed updating' at 1 configs --alter --entity-type topics --entity-name at-2 \
    --add-config retention.ms=12345
says "configs: seen at another" 'retention.ms=12345' at 3 configs --describe --entity-type topics --entity-name at-2

echo "-- the active controller is killed"
old=$(leader 1)
alive=$(other "$old")
stop_node "$old" KILL
says "topics: create without it" 'Created topic after-kill' at "$alive" topics --create --topic after-kill \
    --partitions 3 --replication-factor 2
check "another node leads" test "$(leader "$alive")" != "$old"
check "the dead broker leaves the ISRs" eventually 30 _shows 'Topic: at-1' at "$alive" topics --describe --under-replicated-partitions
run_node "$old"
check "it comes back at once" node_ready "$old"
says "it knows what it missed" 'after-kill' at "$old" topics --list

echo "-- the active controller is stopped"
old=$(leader "$alive")
alive=$(other "$old")
stop_node "$old"
says "topics: delete without it" '' at "$alive" topics --delete --topic after-kill
says "topics: none is led by it" 'Topic: at-1' at "$alive" topics --describe --topic at-1
check "no leader is left there" test -z "$(at "$alive" topics --describe --topic at-1 | grep "Leader: $old")"
run_node "$old"
check "it comes back" node_ready "$old"

echo "-- records, while nodes die"
at "$alive" topics --create --topic data --partitions 3 --replication-factor 3 --config min.insync.replicas=2 >/dev/null
"$KAFKA_HOME/bin/kafka-verifiable-producer.sh" --bootstrap-server "$BOOTSTRAP" --topic data --throughput 1000 --acks -1 \
    >"$OTTLA_TMP/sent.json" 2>"$OTTLA_TMP/sent.err" &
producer=$!
kill_at_exit "$producer"
acked() { grep -c producer_send_success "$OTTLA_TMP/sent.json"; }
# acknowledged N : N more records are acknowledged within half a minute
acknowledged() {
    local wanted=$(($(acked) + $1)) i
    for ((i = 0; i < 150; i++)); do
        [ "$(acked)" -lt "$wanted" ] || return 0
        sleep 0.2
    done
    echo "$(acked) of $wanted are acknowledged"
    return 1
}
in_sync() { [ -z "$(at "$1" topics --describe --under-replicated-partitions)" ]; }
# whole ID : the node is back, and everything is on all nodes
whole() {
    run_node "$1"
    node_ready "$1" && eventually 40 in_sync "$1"
}
check "acks=all on three nodes" acknowledged 2000
victim=$(at "$alive" topics --describe --topic data | sed -n 's/.*Partition: 0.*Leader: \([123]\).*/\1/p')
stop_node "$victim" KILL
check "goes on after kill -9 of a leader" acknowledged 2000
check "the leader is back in all ISRs" whole "$victim"
victim=$(leader "$(other "$victim")")
stop_node "$victim" KILL
check "goes on after kill -9 of the active controller" acknowledged 2000
check "the controller is back in all ISRs" whole "$victim"
for id in 1 2 3; do
    stop_node "$id"
    check "goes on while node $id restarts" acknowledged 1000
    check "node $id is back in all ISRs" whole "$id"
done
kill "$producer"
wait "$producer"
# Every acknowledged record is there once, and what is there more than once was never acknowledged twice.
nothing_lost() {
    local end
    end=$(ktool get-offsets --bootstrap-server "$BOOTSTRAP" --topic data | awk -F: '{ s += $3 } END { print s }')
    KTOOL_SECONDS=120 ktool console-consumer --bootstrap-server "$BOOTSTRAP" --topic data --from-beginning \
        --max-messages "$end" --timeout-ms 60000 2>/dev/null | sort >"$OTTLA_TMP/read"
    grep producer_send_success "$OTTLA_TMP/sent.json" | sed 's/.*"value":"\([0-9]*\)".*/\1/' | sort >"$OTTLA_TMP/acked"
    echo "$end records, $(wc -l <"$OTTLA_TMP/acked") acknowledged"
    [ -s "$OTTLA_TMP/acked" ] || return 1
    comm -13 "$OTTLA_TMP/read" "$OTTLA_TMP/acked" | sed 's/^/lost: /' >"$OTTLA_TMP/wrong"
    uniq -d "$OTTLA_TMP/read" | sed 's/^/twice: /' >>"$OTTLA_TMP/wrong"
    cat "$OTTLA_TMP/wrong"
    [ ! -s "$OTTLA_TMP/wrong" ]
}
check "nothing acknowledged is lost or there twice" nothing_lost

finish
