# Controllers and brokers apart, each a process of its own. Sourced after env.sh, whose run_node and the like serve here too.

# start_cluster_apart [key=value...] : formats and starts controllers 1 to 3 and brokers 4 to 6 with these extra properties, and
# waits until the brokers are in the cluster. Sets what start_cluster sets.
start_cluster_apart() {
    scratch
    local id voters=''
    NODE_IDS='1 2 3 4 5 6'
    NODE_DIR=() NODE_PORT=() NODE_CONTROLLER_PORT=() NODE_PID=()
    BOOTSTRAP=''
    for id in $NODE_IDS; do NODE_DIR[id]=$(mktemp -d "$OTTLA_TMP/node.XXXXXX"); done
    for id in 1 2 3; do
        NODE_CONTROLLER_PORT[id]=$(free_port)
        voters+=${voters:+,}$id@127.0.0.1:${NODE_CONTROLLER_PORT[id]}
    done
    for id in 4 5 6; do
        NODE_PORT[id]=$(free_port)
        BOOTSTRAP+=${BOOTSTRAP:+,}127.0.0.1:${NODE_PORT[id]}
    done
    export BOOTSTRAP
    CLUSTER_ID=$(random_uuid)
    for id in 1 2 3; do
        _write_apart "$id" controller "CONTROLLER://127.0.0.1:${NODE_CONTROLLER_PORT[id]}" "controller.quorum.voters=$voters" "$@"
    done
    for id in 4 5 6; do
        _write_apart "$id" broker "PLAINTEXT://127.0.0.1:${NODE_PORT[id]}" "controller.quorum.voters=$voters" "$@"
    done
    for id in $NODE_IDS; do format_node "$id" || return 1; done
    for id in $NODE_IDS; do run_node "$id"; done
    for id in 4 5 6; do node_ready "$id" || return 1; done
}

# _write_apart ID ROLE LISTENER [key=value...]
_write_apart() {
    local id=$1 role=$2 listener=$3
    shift 3
    cat >"${NODE_DIR[id]}/server.properties" <<-END
	process.roles=$role
	node.id=$id
	listeners=$listener
	inter.broker.listener.name=PLAINTEXT
	controller.listener.names=CONTROLLER
	listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
	log.dirs=${NODE_DIR[id]}/data
	ottla.http.listener=127.0.0.1:$(free_port)
	END
    printf '%s\n' "$@" >>"${NODE_DIR[id]}/server.properties"
}

# format_node ID : makes its directory one of the cluster.
format_node() { _format "${NODE_DIR[$1]}" "$CLUSTER_ID"; }
