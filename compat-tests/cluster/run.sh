#!/usr/bin/env bash
# Three nodes of one cluster, asked by Apache Kafka's own tools: the quorum, the brokers, and what happens when the active
# controller is killed, stopped under control, or comes back.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
fetch_kafka || exit 1
QUORUM=static start_cluster num.partitions=3 auto.create.topics.enable=false offsets.topic.num.partitions=3 || exit 1

# at ID TOOL ARGS... : a tool that knows one node only
at() { ktool "$2" --bootstrap-server "127.0.0.1:${NODE_PORT[$1]}" "${@:3}"; }
leader() { at "$1" metadata-quorum describe --status | sed -n 's/^LeaderId: *//p'; }
other() { for id in 1 2 3; do [ "$id" = "$1" ] || echo "$id"; done | head -n 1; }

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
shows "topics: every node knows them" $'at-1\nat-2\nat-3' at 2 topics --list
shows "topics: replicas on all nodes" 'Replicas: [123],[123],[123].Isr: [123],[123],[123]' at 1 topics --describe --topic at-3
shows "configs: alter at one node" 'Completed updating' at 1 configs --alter --entity-type topics --entity-name at-2 \
    --add-config retention.ms=12345
shows "configs: seen at another" 'retention.ms=12345' at 3 configs --describe --entity-type topics --entity-name at-2

echo "-- the active controller is killed"
old=$(leader 1)
alive=$(other "$old")
stop_node "$old" KILL
says "topics: create without it" 'Created topic after-kill' at "$alive" topics --create --topic after-kill \
    --partitions 3 --replication-factor 2
check "another node leads" eventually 10 another "$old" leader "$alive"
check "the dead broker leaves the ISRs" eventually 30 _says 'Topic: at-1' at "$alive" topics --describe --under-replicated-partitions
run_node "$old"
check "it comes back at once" node_ready "$old"
shows "it knows what it missed" 'after-kill' at "$old" topics --list

echo "-- the active controller is stopped"
old=$(leader "$alive")
alive=$(other "$old")
stop_node "$old"
says "topics: delete without it" '' at "$alive" topics --delete --topic after-kill
led_elsewhere() { _says 'Leader: [123]' at "$alive" topics --describe --topic at-1 && ! at "$alive" topics --describe --topic at-1 | grep "Leader: $old"; }
check "topics: none is led by it" eventually 10 led_elsewhere
run_node "$old"
check "it comes back" node_ready "$old"

echo "-- records, while nodes die"
at "$alive" topics --create --topic data --partitions 3 --replication-factor 3 --config min.insync.replicas=2 >/dev/null
start_sending data 1000
in_sync() { silent at "$1" topics --describe --under-replicated-partitions; }
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
check "nothing acknowledged is lost or there twice" nothing_lost

finish
