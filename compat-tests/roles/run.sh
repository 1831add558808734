#!/usr/bin/env bash
# Three controllers and three brokers, each a process of its own, asked by Apache Kafka's own tools: brokers as observers of the
# quorum, tools that ask controllers, and what happens without a controller, without a majority, without a disk.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/apart.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
[ "$BROKER" = ottla ] || { skip "roles apart" "this suite starts ottla only"; finish; }
fetch_kafka || exit 1
start_cluster_apart num.partitions=3 auto.create.topics.enable=false offsets.topic.num.partitions=3 \
    metadata.log.max.record.bytes.between.snapshots=1000 || exit 1

# at TOOL ARGS... : a tool that knows the brokers; controller ID TOOL ARGS... : one that knows one controller only
at() { ktool "$1" --bootstrap-server "$BOOTSTRAP" "${@:2}"; }
controller() { ktool "$2" --bootstrap-controller "127.0.0.1:${NODE_CONTROLLER_PORT[$1]}" "${@:3}"; }
cluster() { ktool cluster "$1" "--bootstrap-$2" "$3"; }
leader() { at metadata-quorum describe --status | sed -n 's/^LeaderId: *//p'; }
other() { for id in 1 2 3; do [ "$id" = "$1" ] || echo "$id"; done | head -n 1; }
metadata() { echo "${NODE_DIR[$1]}/data/__cluster_metadata-0"; }
logged() { grep -q "$2" "${NODE_DIR[$1]}/broker.log"; }

echo "-- the quorum and its observers"
says "metadata-quorum: status" $'LeaderId: +[123]$\nCurrentVoters: .*"id": 1.*"id": 2.*"id": 3\nCurrentObservers: .*"id": 4.*"id": 5.*"id": 6' \
    at metadata-quorum describe --status
says "metadata-quorum: replication" $'^[123] .*Leader\n^[123] .*Follower\n^4 .*Observer\n^5 .*Observer\n^6 .*Observer' \
    at metadata-quorum describe --replication
for id in 1 2 3; do
    says "metadata-quorum: asked at controller $id" '^6 .*Observer' controller "$id" metadata-quorum describe --replication
done
says "cluster: id, asked at a controller" "Cluster ID: $CLUSTER_ID" cluster cluster-id controller "127.0.0.1:${NODE_CONTROLLER_PORT[2]}"
says "cluster: controllers, asked at a controller" $'^1 .*controller\n^2 .*controller\n^3 .*controller' \
    cluster list-endpoints controller "127.0.0.1:${NODE_CONTROLLER_PORT[2]}"
says "cluster: brokers, asked at a broker" $'^4 .*broker\n^5 .*broker\n^6 .*broker' cluster list-endpoints server "$BOOTSTRAP"
says "features: asked at a controller" 'metadata.version.*FinalizedVersionLevel: 4' controller 1 features describe
says "configs: altered at a controller" 'Completed updating' controller 1 configs --alter --entity-type brokers --entity-default \
    --add-config message.max.bytes=1234567
shows "configs: seen at the brokers" 'message.max.bytes=1234567' at configs --describe --entity-type brokers --entity-default

echo "-- a cluster like any other"
says "topics: create" 'Created topic data' at topics --create --topic data --partitions 3 --replication-factor 3 --config min.insync.replicas=2
shows "topics: led by brokers" $'Replicas: [456],[456],[456].Isr: [456],[456],[456]' at topics --describe --topic data
produce() { seq 1 100 | at console-producer --topic data 2>&1; }
check "console-producer" produce
consume() { [ "$(at console-consumer --topic data --from-beginning --max-messages 100 --timeout-ms 30000 2>/dev/null | sort -n | uniq | wc -l)" = 100 ]; }
check "console-consumer" consume
check "a controller has no partitions" test -z "$(find "${NODE_DIR[1]}/data" -name 'data-*')"
dumped() { ktool dump-log --cluster-metadata-decoder --files "$(ls "$(metadata "$1")"/*."$2" | tail -n 1)"; }
says "dump-log: a broker's copy of the metadata log" '"type":"[A-Z_]*RECORD"' dumped 4 log

at topics --create --topic sent --partitions 3 --replication-factor 3 --config min.insync.replicas=2 >/dev/null
start_sending sent 500

echo "-- the active controller is killed"
old=$(leader)
stop_node "$old" KILL
says "topics: create without it" 'Created topic after-kill' at topics --create --topic after-kill --partitions 3 --replication-factor 3
check "another controller leads" eventually 10 another "$old" leader
check "producing goes on" acknowledged 500
run_node "$old"
check "it is a voter again" eventually 30 _says "^$old .*Follower" at metadata-quorum describe --replication

echo "-- all controllers are killed"
for id in 1 2 3; do stop_node "$id" KILL; done
check "producing goes on" acknowledged 2000
check "consuming goes on" consume
refused() { ! KTOOL_SECONDS=20 at topics --create --topic "$1" --partitions 1 --replication-factor 1 >/dev/null 2>&1; }
check "topics: nobody decides" refused nobody
lost='no leader of the metadata quorum is found'
asked() { local port=${NODE_CONTROLLER_PORT[$2]}; logged "$1" "WARN .*$lost.*127.0.0.1:$port cannot be reached: "; }
for id in 1 2 3; do check "a broker says that it cannot reach controller $id" eventually 20 asked 4 "$id"; done
: >"${NODE_DIR[1]}/broker.log"
run_node 1
for id in 2 3; do check "a controller that starts alone says that it cannot reach $id" eventually 20 asked 1 "$id"; done
check "and no more than that" test "$(grep -c WARN "${NODE_DIR[1]}/broker.log")" -le 2
for id in 2 3; do run_node "$id"; done
for id in 1 4; do check "node $id says that a leader is found" eventually 30 logged "$id" 'INFO .*a leader of the metadata quorum is found'; done
says "topics: create when they are back" 'Created topic back' at topics --create --topic back --partitions 3 --replication-factor 3
check "producing goes on still" acknowledged 500

echo "-- a deposed controller"
old=$(leader)
kill -STOP "${NODE_PID[$old]}"
# It takes the request from its socket when it runs again, as the leader that it believes to be.
python3 - 127.0.0.1 "${NODE_CONTROLLER_PORT[$old]}" >"$OTTLA_TMP/deposed" <<'END' &
import socket, struct, sys
text = lambda s: struct.pack(">h", len(s)) + s
topic = text(b"ghost") + struct.pack(">ihii", 1, 1, 0, 0)
body = struct.pack(">hhi", 19, 4, 1) + text(b"test") + struct.pack(">i", 1) + topic + struct.pack(">iB", 30000, 0)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as sock:
    sock.settimeout(60)
    sock.sendall(struct.pack(">i", len(body)) + body)
    answer = sock.makefile("rb").read(4 + 4 + 4 + 4 + 2 + 5 + 2)
    print(struct.unpack(">h", answer[-2:])[0])
END
request=$!
check "another controller leads" eventually 30 another "$old" leader
says "topics: create at the new one" 'Created topic deposed' at topics --create --topic deposed --partitions 3 --replication-factor 3
kill -CONT "${NODE_PID[$old]}"
wait "$request"
check "the old one answers NOT_CONTROLLER" test "$(cat "$OTTLA_TMP/deposed")" = 41
commits_nothing() { at topics --list >"$OTTLA_TMP/listed" && grep -qx deposed "$OTTLA_TMP/listed" && ! grep -qx ghost "$OTTLA_TMP/listed"; }
check "and commits nothing" eventually 10 commits_nothing
check "it follows the new one" eventually 30 _says "^$old .*Follower" at metadata-quorum describe --replication

echo "-- empty disks"
for i in 1 2 3 4 5 6 7 8; do at topics --create --topic "more-$i" --partitions 3 --replication-factor 3 >/dev/null; done
follower=$(other "$(leader)")
# With the second snapshot the leader drops the log before the first.
trimmed() { [ "$(ls "$(metadata "$1")"/*.checkpoint 2>/dev/null | wc -l)" -ge 2 ]; }
check "the leader has snapshots instead of its first records" eventually 30 trimmed "$(leader)"
stop_node "$follower" KILL
rm -r "${NODE_DIR[$follower]}/data"
check "a controller is formatted anew" format_node "$follower"
run_node "$follower"
caught_up() { at metadata-quorum describe --replication | awk -v id="$1" '$1 == id && $4 == 0 { found = 1 } END { exit !found }'; }
check "it catches up" eventually 30 caught_up "$follower"
has_snapshot() { ls "$(metadata "$1")"/*.checkpoint; }
check "from a snapshot" has_snapshot "$follower"
stop_node 5
rm -r "$(metadata 5)"
run_node 5
check "a broker without its metadata log comes back" node_ready 5
check "from a snapshot" logged 5 'fetching a metadata snapshot'
says "dump-log: a broker's snapshot" '"type":"REGISTER_BROKER_RECORD"' dumped 5 checkpoint
in_sync() { silent at topics --describe --under-replicated-partitions; }
check "and is in all ISRs" eventually 60 in_sync
check "producing goes on" acknowledged 500

echo "-- nothing is lost"
check "every acknowledged record is there once" nothing_lost

echo "-- brokers that cannot be of this cluster"
# stranger ID NODE_ID CLUSTER : a broker in place ID that gives itself NODE_ID and was formatted for CLUSTER
stranger() {
    local servers
    servers=$(printf '127.0.0.1:%s,' "${NODE_CONTROLLER_PORT[@]}")
    NODE_DIR[$1]=$(mktemp -d "$OTTLA_TMP/node.XXXXXX")
    NODE_PORT[$1]=$(free_port)
    _write_apart "$1" broker "PLAINTEXT://127.0.0.1:${NODE_PORT[$1]}" "node.id=$2" "controller.quorum.bootstrap.servers=${servers%,}"
    _format "${NODE_DIR[$1]}" "$3" && run_node "$1"
}
another=$(random_uuid)
stranger 7 7 "$another"
check "one of another cluster says which" eventually 20 logged 7 "this node is of cluster $another, but .* of $CLUSTER_ID"
stranger 8 "$(leader)" "$CLUSTER_ID"
check "one with the leader's node.id says so" eventually 20 logged 8 "the leading controller has this broker's node.id"

finish
