# Three nodes as one cluster, each broker and controller, of either broker ($BROKER). Sourced by env.sh.

# start_replicated [key=value...] : start_broker with NODES=3. Whatever does not say how often it is to be replicated is on all
# nodes, and two of them must have a record before it is acknowledged.
start_replicated() {
    [ -z "$BROKER_NODE_ID" ] || NODE_IDS="$BROKER_NODE_ID $((BROKER_NODE_ID + 1)) $((BROKER_NODE_ID + 2))"
    start_cluster default.replication.factor=3 min.insync.replicas=2 offsets.topic.replication.factor=3 \
        transaction.state.log.replication.factor=3 transaction.state.log.min.isr=2 \
        share.coordinator.state.topic.replication.factor=3 share.coordinator.state.topic.min.isr=2 "$@" || return 1
    REPLICATION=3
    # a client that knows one node finds the others
    BOOTSTRAP=127.0.0.1:${NODE_PORT[${NODE_IDS%% *}]}
    BROKER_DIR=${NODE_DIR[${NODE_IDS%% *}]}
    BROKER_PORT=${NODE_PORT[${NODE_IDS%% *}]}
    BROKER_PID=${NODE_PID[${NODE_IDS%% *}]}
    export BROKER_PORT REPLICATION
}
# How often a program of compat-tests/ has its topics replicated.
export REPLICATION=1
NODE_IDS='1 2 3'

# start_cluster [key=value...] : formats and starts the nodes $NODE_IDS with these extra properties and waits until all are in the
# cluster. Sets NODE_DIR, NODE_PORT, NODE_CONTROLLER_PORT and NODE_PID (by node id), CLUSTER_ID and BOOTSTRAP (all three). With
# QUORUM=static the voters stand in the properties (controller.quorum.voters) instead of the metadata log.
start_cluster() {
    scratch
    [ "$BROKER" = ottla ] || fetch_kafka || return 1
    local id voters='' controllers='' initial='' quorum format line
    NODE_DIR=() NODE_PORT=() NODE_CONTROLLER_PORT=() NODE_PID=()
    BOOTSTRAP=''
    for id in $NODE_IDS; do
        NODE_DIR[id]=$(mktemp -d "$OTTLA_TMP/node.XXXXXX")
        NODE_PORT[id]=$(free_port)
        NODE_CONTROLLER_PORT[id]=$(free_port)
        line=127.0.0.1:${NODE_CONTROLLER_PORT[id]}
        controllers+=${controllers:+,}$line
        voters+=${voters:+,}$id@$line
        initial+=${initial:+,}$id@$line:$(random_uuid)
        BOOTSTRAP+=${BOOTSTRAP:+,}127.0.0.1:${NODE_PORT[id]}
    done
    export BOOTSTRAP
    CLUSTER_ID=$(random_uuid)
    quorum=controller.quorum.bootstrap.servers=$controllers
    format=(--initial-controllers "$initial")
    [ "$QUORUM" != static ] || { quorum=controller.quorum.voters=$voters; format=(); }
    for id in $NODE_IDS; do
        cat >"${NODE_DIR[id]}/server.properties" <<-END
		process.roles=broker,controller
		node.id=$id
		listeners=PLAINTEXT://127.0.0.1:${NODE_PORT[id]},CONTROLLER://127.0.0.1:${NODE_CONTROLLER_PORT[id]}
		inter.broker.listener.name=PLAINTEXT
		controller.listener.names=CONTROLLER
		listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
		log.dirs=${NODE_DIR[id]}/data
		END
        [ "$BROKER" = kafka ] || echo "ottla.http.listener=127.0.0.1:$(free_port)" >>"${NODE_DIR[id]}/server.properties"
        for line in "$quorum" "$@"; do printf '%s\n' "$line" >>"${NODE_DIR[id]}/server.properties"; done
        _format "${NODE_DIR[id]}" "$CLUSTER_ID" "${format[@]}" || return 1
    done
    run_nodes
}

# run_nodes : starts all nodes and waits until each is in the cluster and knows the others.
run_nodes() {
    local id
    for id in $NODE_IDS; do run_node "$id"; done
    for id in $NODE_IDS; do node_ready "$id" "$(wc -w <<<"$NODE_IDS")" || return 1; done
}

# run_node ID : starts a node that does not run, on the same ports and data.
run_node() {
    _spawn "${NODE_DIR[$1]}"
    NODE_PID[$1]=$!
    kill_at_exit $!
    disown $!
    # whose life `finish` asks about
    [ "$1" != "${NODE_IDS%% *}" ] || BROKER_PID=$!
}

# node_ready ID [BROKERS] : waits until a node answers Metadata with so many brokers, default one.
node_ready() {
    python3 "$OTTLA_ROOT/scripts/lib/ready.py" 127.0.0.1 "${NODE_PORT[$1]}" "${NODE_PID[$1]}" 60 "${2:-1}" && return 0
    echo "node $1 did not get ready; its log ends:" >&2
    tail -n 20 "${NODE_DIR[$1]}/broker.log" >&2
    return 1
}

# stop_node ID [SIGNAL] : ends a node and waits for its end; with KILL it has no chance to say good-bye.
stop_node() {
    kill "-${2:-TERM}" "${NODE_PID[$1]}"
    while kill -0 "${NODE_PID[$1]}" 2>/dev/null; do sleep 0.1; done
}
