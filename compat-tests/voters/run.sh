#!/usr/bin/env bash
# The quorum's voters change under load, by Apache Kafka's own tool: one grows to three, the first is killed, a disk is lost, the
# active controller removes itself, all are restarted (KIP-853). Then five voters lose two, and three.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
[ "$BROKER" = ottla ] || { skip "three nodes" "this suite starts ottla only"; finish; }
fetch_kafka || exit 1
scratch

NODE_DIR=() NODE_PORT=() NODE_CONTROLLER_PORT=() NODE_PID=()
cluster_id=$("$OTTLA_BIN" storage random-uuid)
for id in 1 2 3; do
    NODE_DIR[id]=$(mktemp -d "$OTTLA_TMP/node.XXXXXX")
    NODE_PORT[id]=$(free_port)
    NODE_CONTROLLER_PORT[id]=$(free_port)
done
export BOOTSTRAP=127.0.0.1:${NODE_PORT[1]},127.0.0.1:${NODE_PORT[2]},127.0.0.1:${NODE_PORT[3]}
controllers=127.0.0.1:${NODE_CONTROLLER_PORT[1]},127.0.0.1:${NODE_CONTROLLER_PORT[2]},127.0.0.1:${NODE_CONTROLLER_PORT[3]}
# format ID FLAGS... : formats the node's directory, which is new
format() {
    cat >"${NODE_DIR[$1]}/server.properties" <<-END
	process.roles=broker,controller
	node.id=$1
	controller.quorum.bootstrap.servers=$controllers
	listeners=PLAINTEXT://127.0.0.1:${NODE_PORT[$1]},CONTROLLER://127.0.0.1:${NODE_CONTROLLER_PORT[$1]}
	advertised.listeners=PLAINTEXT://127.0.0.1:${NODE_PORT[$1]},CONTROLLER://127.0.0.1:${NODE_CONTROLLER_PORT[$1]}
	inter.broker.listener.name=PLAINTEXT
	controller.listener.names=CONTROLLER
	listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
	log.dirs=${NODE_DIR[$1]}/data
	controller.quorum.auto.join.enable=${AUTO_JOIN:-false}
	END
    "$OTTLA_BIN" storage format "${@:2}" -t "$cluster_id" -c "${NODE_DIR[$1]}/server.properties" >"${NODE_DIR[$1]}/format.log" 2>&1 ||
        { cat "${NODE_DIR[$1]}/format.log"; return 1; }
}
# at ID TOOL ARGS... : a tool that knows one node only
at() { ktool "$2" --bootstrap-server "127.0.0.1:${NODE_PORT[$1]}" "${@:3}"; }
directory() { sed -n 's/^directory.id=//p' "${NODE_DIR[$1]}/data/meta.properties" | tr -d '\\'; }
status() { at "$1" metadata-quorum describe --status; }
leader() { status "$1" | sed -n 's/^LeaderId: *//p'; }
# ids ID Voters|Observers : who is one, as node ID says
ids() { status "$1" | sed -n "s/^Current$2: *//p" | grep -o '"id": [0-9]*' | tr -dc '0-9\n' | sort | tr '\n' ' '; }
voters_are() { [ "$(ids "$1" Voters)" = "$2" ] || { status "$1"; return 1; }; }
observers_are() { [ "$(ids "$1" Observers)" = "$2" ] || { status "$1"; return 1; }; }
add() {
    ktool metadata-quorum "${@:2}" --command-config "${NODE_DIR[$1]}/server.properties" add-controller
}
# remove ID DIRECTORY ARGS...
remove() { ktool metadata-quorum "${@:3}" remove-controller --controller-id "$1" --controller-directory-id "$2"; }
in_sync() { silent at "$1" topics --describe --under-replicated-partitions; }

echo "-- from one voter to three, under load"
check "storage format --standalone" format 1 --standalone
check "storage format --no-initial-controllers" format 2 --no-initial-controllers
check "storage format --initial-controllers, which are others" \
    format 3 --initial-controllers "1@127.0.0.1:${NODE_CONTROLLER_PORT[1]}:$(directory 1)"
run_node 1
check "node 1 is a quorum of its own" node_ready 1
for id in 2 3; do run_node "$id"; done
for id in 2 3; do check "node $id is a broker before it is a voter" node_ready "$id"; done
check "they observe the quorum" eventually 20 observers_are 2 "2 3 "
at 1 topics --create --topic data --partitions 3 --replication-factor 3 --config min.insync.replicas=2 >/dev/null
start_sending data 500
check "records are acknowledged" acknowledged 500
check "add-controller at a broker" add 2 --bootstrap-server "127.0.0.1:${NODE_PORT[2]}"
check "add-controller at the controllers" add 3 --bootstrap-controller "127.0.0.1:${NODE_CONTROLLER_PORT[1]}"
check "three voters, no observer" voters_are 3 "1 2 3 "
check "with their directories" grep -q "$(directory 3)" <<<"$(status 1)"
refuses "nobody is added twice" "DuplicateVoterException" add 2 --bootstrap-server "127.0.0.1:${NODE_PORT[1]}"
refuses "a stranger is not removed" "VoterNotFoundException" remove 2 AAAAAAAAAAAAAAAAAAAABB --bootstrap-server "127.0.0.1:${NODE_PORT[1]}"
check "records are acknowledged meanwhile" acknowledged 500
check "dump-log shows the voters" grep -q "KRaftVoters.*voterId\":3" \
    <<<"$(ktool dump-log --cluster-metadata-decoder --files "${NODE_DIR[1]}/data/__cluster_metadata-0/00000000000000000000.log" 2>&1)"

echo "-- the first voter is killed"
old=$(leader 2)
stop_node 1 KILL
check "[old leader $old] topics are created without it" eventually 20 at 2 topics --create --if-not-exists --topic after-kill --replication-factor 2
check "records are acknowledged" acknowledged 1000
run_node 1
check "it is back" node_ready 1
check "in all ISRs" eventually 40 in_sync 1

echo "-- a voter loses its disk"
lost=$(directory 2)
stop_node 2 KILL
mv "${NODE_DIR[2]}/data" "${NODE_DIR[2]}/lost"
check "storage format --no-initial-controllers" format 2 --no-initial-controllers
run_node 2
check "it is a broker again" node_ready 2
check "and observes, as another replica" eventually 20 observers_are 1 "2 "
check "remove-controller, the lost directory" remove 2 "$lost" --bootstrap-server "127.0.0.1:${NODE_PORT[1]}"
check "two voters" voters_are 1 "1 3 "
check "add-controller, the new one" add 2 --bootstrap-server "127.0.0.1:${NODE_PORT[1]}"
check "three voters" voters_are 1 "1 2 3 "
check "in all ISRs" eventually 60 in_sync 1

echo "-- the active controller removes itself"
old=$(leader 1)
check "remove-controller $old" remove "$old" "$(directory "$old")" --bootstrap-controller "127.0.0.1:${NODE_CONTROLLER_PORT[$old]}"
check "another leads" eventually 10 another "$old" leader 1
observes() { [[ " $(ids "$1" Observers)" == *" $2 "* ]]; }
check "it observes" eventually 10 observes 1 "$old"
check "its broker goes on" at "$old" topics --create --topic "after-removal" --partitions 3 --replication-factor 3
check "records are acknowledged" acknowledged 500
stop_node "$old"
check "nobody misses it" at $((old % 3 + 1)) topics --create --topic without-it --replication-factor 2
run_node "$old"
check "it comes back as an observer" node_ready "$old"
shows "and knows what it missed" without-it at "$old" topics --list
check "two voters" voters_are "$old" "$(for id in 1 2 3; do [ "$id" = "$old" ] || printf '%s ' "$id"; done)"
check "add-controller $old" add "$old" --bootstrap-controller "127.0.0.1:${NODE_CONTROLLER_PORT[$old]}"

echo "-- everything is restarted"
for id in 1 2 3; do stop_node "$id" KILL; done
for id in 1 2 3; do run_node "$id"; done
for id in 1 2 3; do check "node $id is back" node_ready "$id"; done
check "the same three voters" eventually 20 voters_are 2 "1 2 3 "
check "in all ISRs" eventually 60 in_sync 1
check "nothing acknowledged is lost or there twice" nothing_lost

echo "-- five voters"
for id in 1 2 3; do stop_node "$id" KILL; done
NODE_IDS='1 2 3 4 5'
check "five nodes start" start_cluster
create() { at "$1" topics --create --if-not-exists --topic "$2" --partitions 1 --replication-factor 1; }
refused() { ! KTOOL_SECONDS=10 create "$1" "$2"; }
old=$(leader 1)
# The first to go leads; the third is back before the second.
gone=($old $((old % 5 + 1)) $(((old + 1) % 5 + 1)))
up=$(((old + 2) % 5 + 1))
for id in "${gone[@]:0:2}"; do stop_node "$id" KILL; done
check "[old leader $old] topics are created without it and another" eventually 20 create "$up" without-two
check "another leads" another "$old" leader "$up"
stop_node "${gone[2]}" KILL
check "two of five decide nothing" refused "$up" without-three
run_node "${gone[2]}"
check "three do" eventually 30 create "$up" three-again
for id in "${gone[@]:0:2}"; do run_node "$id"; done
for id in "${gone[@]}"; do check "node $id is back" node_ready "$id"; done
check "five voters" voters_are "$old" "1 2 3 4 5 "
shows "who led knows what it missed" $'three-again\nwithout-two' at "$old" topics --list

finish
