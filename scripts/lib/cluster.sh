# Three nodes as one cluster, each broker and controller. Sourced after env.sh.

# start_cluster [key=value...] : formats and starts nodes 1 to 3 with these extra properties and waits until all are in the
# cluster. Sets NODE_DIR, NODE_PORT, NODE_CONTROLLER_PORT and NODE_PID (by node id) and BOOTSTRAP (all three).
start_cluster() {
    scratch
    local cluster_id id voters='' line
    NODE_DIR=() NODE_PORT=() NODE_CONTROLLER_PORT=() NODE_PID=()
    BOOTSTRAP=''
    for id in 1 2 3; do
        NODE_DIR[id]=$(mktemp -d "$OTTLA_TMP/node.XXXXXX")
        NODE_PORT[id]=$(free_port)
        NODE_CONTROLLER_PORT[id]=$(free_port)
        voters+=${voters:+,}$id@127.0.0.1:${NODE_CONTROLLER_PORT[id]}
        BOOTSTRAP+=${BOOTSTRAP:+,}127.0.0.1:${NODE_PORT[id]}
    done
    export BOOTSTRAP
    cluster_id=$("$OTTLA_BIN" storage random-uuid) || return 1
    for id in 1 2 3; do
        cat >"${NODE_DIR[id]}/server.properties" <<-END
		process.roles=broker,controller
		node.id=$id
		controller.quorum.voters=$voters
		listeners=PLAINTEXT://127.0.0.1:${NODE_PORT[id]},CONTROLLER://127.0.0.1:${NODE_CONTROLLER_PORT[id]}
		inter.broker.listener.name=PLAINTEXT
		controller.listener.names=CONTROLLER
		listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
		log.dirs=${NODE_DIR[id]}/data
		ottla.http.listener=127.0.0.1:$(free_port)
		END
        for line in "$@"; do printf '%s\n' "$line" >>"${NODE_DIR[id]}/server.properties"; done
        "$OTTLA_BIN" storage format -t "$cluster_id" -c "${NODE_DIR[id]}/server.properties" \
            >"${NODE_DIR[id]}/format.log" 2>&1 || { cat "${NODE_DIR[id]}/format.log" >&2; return 1; }
    done
    for id in 1 2 3; do run_node "$id"; done
    for id in 1 2 3; do node_ready "$id" || return 1; done
}

# run_node ID : starts a node that does not run, on the same ports and data.
run_node() {
    "$OTTLA_BIN" "${NODE_DIR[$1]}/server.properties" >>"${NODE_DIR[$1]}/broker.log" 2>&1 &
    NODE_PID[$1]=$!
    kill_at_exit $!
    disown $!
}

# node_ready ID : waits until a node answers Metadata.
node_ready() {
    python3 "$OTTLA_ROOT/scripts/lib/ready.py" 127.0.0.1 "${NODE_PORT[$1]}" "${NODE_PID[$1]}" 60 && return 0
    echo "node $1 did not get ready; its log ends:" >&2
    tail -n 20 "${NODE_DIR[$1]}/broker.log" >&2
    return 1
}

# stop_node ID [SIGNAL] : ends a node and waits for its end; with KILL it has no chance to say good-bye.
stop_node() {
    kill "-${2:-TERM}" "${NODE_PID[$1]}"
    while kill -0 "${NODE_PID[$1]}" 2>/dev/null; do sleep 0.1; done
}
