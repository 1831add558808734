# Shared by scripts/ and compat-tests/: where things are cached, how a broker is started and stopped, how cases are
# counted. Source it from bash; it sets no shell options.
#
#   BROKER=ottla|kafka   which broker start_broker starts (default ottla); with kafka a suite shows its expected score
#   NODES=1|3            how many nodes start_broker starts (default 1); three replicate everything three times
#   OTTLA_CACHE          cache of everything fetched or built once (default $XDG_CACHE_HOME/ottla or ~/.cache/ottla)
#   OTTLA_BIN            the binary to test (default: the release build of this checkout)

OTTLA_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OTTLA_CACHE=${OTTLA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ottla}
OTTLA_BIN=${OTTLA_BIN:-${CARGO_TARGET_DIR:-$OTTLA_ROOT/target}/release/ottla}
BROKER=${BROKER:-ottla}
NODES=${NODES:-1}
KAFKA_VERSION=4.3.1
KAFKA_HOME=$OTTLA_CACHE/kafka-$KAFKA_VERSION
export OTTLA_ROOT OTTLA_CACHE OTTLA_BIN BROKER NODES KAFKA_HOME

# ---- fetching -----------------------------------------------------------------------------------------------------

# apt_need PACKAGE... : installs the Debian packages that are missing.
apt_need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    (
        flock 9
        $sudo apt-get update -qq
        $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
    ) 9>"/tmp/ottla-apt.$(id -u).lock" >&2
}

# once NAME COMMAND... : runs COMMAND unless an earlier run left the stamp $OTTLA_CACHE/NAME.done; one at a time.
once() {
    local name=$1
    shift
    mkdir -p "$OTTLA_CACHE"
    (
        flock 9
        [ -e "$OTTLA_CACHE/$name.done" ] && exit 0
        "$@" && touch "$OTTLA_CACHE/$name.done"
    ) 9>"$OTTLA_CACHE/$name.lock"
}

_fetch_kafka() {
    local pom=$OTTLA_ROOT/compat-tests/java/pom.xml
    command -v mvn >/dev/null && command -v javac >/dev/null || apt_need openjdk-17-jdk-headless maven
    if [ ! -e "$KAFKA_HOME/libs/kafka_2.13-$KAFKA_VERSION.jar" ]; then
        echo "fetching Apache Kafka $KAFKA_VERSION with Maven" >&2
        mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$KAFKA_HOME/libs" >&2 || return 1
    fi
}

# fetch_kafka : Apache Kafka's jars in $KAFKA_HOME/libs and its scripts' names in $KAFKA_HOME/bin.
fetch_kafka() {
    once "kafka-$KAFKA_VERSION" _fetch_kafka || return 1
    [ -e "$KAFKA_HOME/bin/kafka-topics.sh" ] || _write_kafka_scripts
    [ -e "$KAFKA_HOME/tools.jsa" ] || _archive_classes
}

# A class data archive of the JVM halves the second that each tool takes to start. Without it all still works.
_archive_classes() {
    local dir
    dir=$(mktemp -d)
    printf 'default.api.timeout.ms=900\nrequest.timeout.ms=800\n' >"$dir/client"
    timeout 60 java -Xmx256m -XX:+UseSerialGC -XX:ArchiveClassesAtExit="$dir/tools.jsa" -cp "$KAFKA_HOME/libs/*" \
        org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:1 --list --command-config "$dir/client" \
        >"$dir/log" 2>&1
    [ ! -e "$dir/tools.jsa" ] || mv -f "$dir/tools.jsa" "$KAFKA_HOME/tools.jsa.$$" && mv -f "$KAFKA_HOME/tools.jsa.$$" "$KAFKA_HOME/tools.jsa"
    rm -rf "$dir"
}

_write_kafka_scripts() {
    local name class bin
    mkdir -p "$KAFKA_HOME/bin"
    while read -r name class; do
        bin=$KAFKA_HOME/bin/$name.sh
        printf '#!/bin/sh\nexec java %s -XX:SharedArchiveFile=%s/tools.jsa -cp "%s/libs/*" %s "$@"\n' \
            '${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto' \
            "$KAFKA_HOME" "$KAFKA_HOME" "$class" >"$bin.$$"
        chmod +x "$bin.$$"
        mv "$bin.$$" "$bin"
    done <<-END
	kafka-configs kafka.admin.ConfigCommand
	kafka-console-producer org.apache.kafka.tools.ConsoleProducer
	kafka-console-consumer org.apache.kafka.tools.consumer.ConsoleConsumer
	kafka-consumer-groups org.apache.kafka.tools.consumer.group.ConsumerGroupCommand
	kafka-groups org.apache.kafka.tools.GroupsCommand
	kafka-get-offsets org.apache.kafka.tools.GetOffsetShell
	kafka-delete-records org.apache.kafka.tools.DeleteRecordsCommand
	kafka-log-dirs org.apache.kafka.tools.LogDirsCommand
	kafka-leader-election org.apache.kafka.tools.LeaderElectionCommand
	kafka-reassign-partitions org.apache.kafka.tools.reassign.ReassignPartitionsCommand
	kafka-cluster org.apache.kafka.tools.ClusterTool
	kafka-acls org.apache.kafka.tools.AclCommand
	kafka-dump-log org.apache.kafka.tools.DumpLogSegments
	kafka-broker-api-versions org.apache.kafka.tools.BrokerApiVersionsCommand
	kafka-metadata-quorum org.apache.kafka.tools.MetadataQuorumCommand
	kafka-features org.apache.kafka.tools.FeatureCommand
	kafka-transactions org.apache.kafka.tools.TransactionsCommand
	kafka-client-metrics org.apache.kafka.tools.ClientMetricsCommand
	kafka-producer-perf-test org.apache.kafka.tools.ProducerPerformance
	kafka-consumer-perf-test org.apache.kafka.tools.ConsumerPerformance
	kafka-e2e-latency org.apache.kafka.tools.EndToEndLatency
	kafka-verifiable-producer org.apache.kafka.tools.VerifiableProducer
	kafka-verifiable-consumer org.apache.kafka.tools.VerifiableConsumer
	kafka-storage kafka.tools.StorageTool
	kafka-topics org.apache.kafka.tools.TopicCommand
	END
}

# ktool NAME ARGS... : runs a stock Kafka tool, e.g. `ktool topics --list ...`, for at most $KTOOL_SECONDS.
ktool() {
    local name=$1
    shift
    timeout -k 5 "${KTOOL_SECONDS:-60}" "$KAFKA_HOME/bin/kafka-$name.sh" "$@"
}

# ---- processes ----------------------------------------------------------------------------------------------------

# free_port : prints a loopback port nobody listens on, below the range that outgoing connections use. Each of scripts/test's LANES
# has a range of its own: a port of a broker that is down for a moment is not given to a test that runs beside. None is given twice.
free_port() {
    local port count=$((17000 / ${LANES:-1})) from
    from=$((15000 + ${LANE:-0} * count))
    while :; do
        port=$((from + (RANDOM * 32768 + RANDOM) % count))
        grep -qsx "$port" "$OTTLA_TMP/ports" || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port" | tee -a "${OTTLA_TMP:?scratch comes first}/ports"
}

OTTLA_TMP=
_CLEANUP_PIDS=()

# scratch : sets OTTLA_TMP to a temporary directory that goes away with the script.
scratch() {
    [ -n "$OTTLA_TMP" ] && return 0
    OTTLA_TMP=$(mktemp -d "${TMPDIR:-/tmp}/ottla-test.XXXXXX")
    trap _cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# kill_at_exit PID : end this process of ours when the script ends.
kill_at_exit() { _CLEANUP_PIDS+=("$1"); }

_cleanup() {
    local status=$? pid
    trap - EXIT
    trap '' INT TERM HUP
    stop_broker
    for pid in "${_CLEANUP_PIDS[@]}"; do kill -9 "$pid" 2>/dev/null; done
    if [ -n "$OTTLA_KEEP" ]; then
        echo "kept $OTTLA_TMP" >&2
    else
        rm -rf "$OTTLA_TMP"
    fi
    exit "$status"
}

# start_broker [key=value...] : starts a fresh broker on free ports with an empty data directory and these extra
# properties, and waits until it answers Metadata. Sets BOOTSTRAP, BROKER_PORT, BROKER_PID, BROKER_DIR. With NODES=3 it is a
# cluster (cluster.sh), and these are those of its first node.
start_broker() {
    scratch
    if [ "$NODES" != 1 ]; then
        start_replicated "$@"
        return
    fi
    BROKER_DIR=$(mktemp -d "$OTTLA_TMP/broker.XXXXXX")
    BROKER_PORT=${BROKER_PORT_WANTED:-$(free_port)}
    local controller_port line
    controller_port=$(free_port)
    BOOTSTRAP=127.0.0.1:$BROKER_PORT
    export BOOTSTRAP BROKER_PORT
    cat >"$BROKER_DIR/server.properties" <<-END
	process.roles=broker,controller
	node.id=${BROKER_NODE_ID:-1}
	controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
	listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller_port
	inter.broker.listener.name=PLAINTEXT
	advertised.listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller_port
	controller.listener.names=CONTROLLER
	listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
	log.dirs=$BROKER_DIR/data
	offsets.topic.replication.factor=1
	share.coordinator.state.topic.replication.factor=1
	share.coordinator.state.topic.min.isr=1
	transaction.state.log.replication.factor=1
	transaction.state.log.min.isr=1
	END
    for line in "$@"; do printf '%s\n' "$line" >>"$BROKER_DIR/server.properties"; done
    "_start_$BROKER" || return 1
}

# restart_broker : starts the stopped broker, or all stopped nodes, again on the same ports and data.
restart_broker() {
    if [ "$NODES" = 1 ]; then "_run_$BROKER"; else run_nodes; fi
}

_start_kafka() {
    fetch_kafka || return 1
    _format "$BROKER_DIR" "$(random_uuid)" --standalone || return 1
    _run_kafka
}

# random_uuid : prints a random id as Kafka writes them.
random_uuid() { head -c 16 /dev/urandom | base64 | tr '+/=' 'Aa ' | tr -d ' '; }

# _format DIR CLUSTER_ID ARGS... : formats the data directory of DIR/server.properties with the storage tool of $BROKER.
_format() {
    local storage=("$OTTLA_BIN" storage)
    [ "$BROKER" = ottla ] || storage=("$KAFKA_HOME/bin/kafka-storage.sh")
    "${storage[@]}" format -t "$2" -c "$1/server.properties" "${@:3}" >"$1/format.log" 2>&1 && return 0
    cat "$1/format.log" >&2
    return 1
}

# _spawn DIR : starts the process of DIR/server.properties in the background; its id is $! then.
_spawn() {
    if [ "$BROKER" = ottla ]; then
        "$OTTLA_BIN" "$1/server.properties" >>"$1/broker.log" 2>&1 &
    else
        java ${KAFKA_BROKER_OPTS:--Xmx512m -Xms256m} -server -XX:+UseSerialGC -cp "$KAFKA_HOME/libs/*" kafka.Kafka \
            "$1/server.properties" >>"$1/broker.log" 2>&1 &
    fi
}

_run_kafka() {
    BROKER=kafka _spawn "$BROKER_DIR"
    BROKER_PID=$!
    _wait_ready
}

_start_ottla() {
    [ -x "$OTTLA_BIN" ] || { echo "no $OTTLA_BIN: cargo build --release" >&2; return 1; }
    echo "ottla.http.listener=127.0.0.1:$(free_port)" >>"$BROKER_DIR/server.properties"
    _run_ottla
}

_run_ottla() {
    BROKER=ottla _spawn "$BROKER_DIR"
    BROKER_PID=$!
    _wait_ready
}

_wait_ready() {
    python3 "$OTTLA_ROOT/scripts/lib/ready.py" 127.0.0.1 "$BROKER_PORT" "$BROKER_PID" 60 && return 0
    echo "the broker ($BROKER) did not get ready; its log ends:" >&2
    tail -n 20 "$BROKER_DIR/broker.log" >&2
    stop_broker
    return 1
}

# stop_broker : SIGTERM, and SIGKILL after ten seconds. Keeps the data directory until the script ends.
stop_broker() {
    [ -n "$BROKER_PID" ] || return 0
    local pids=("$BROKER_PID") pid i
    [ "$NODES" = 1 ] || pids=("${NODE_PID[@]}")
    BROKER_PID=
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    for ((i = 0; i < 100; i++)); do
        kill -0 "${pids[@]}" 2>/dev/null || break
        sleep 0.1
    done
    for pid in "${pids[@]}"; do
        kill -9 "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    return 0
}

# broker_alive : whether all that start_broker started still runs.
broker_alive() {
    [ -n "$BROKER_PID" ] || return 1
    local pid
    for pid in $([ "$NODES" = 1 ] && echo "$BROKER_PID" || echo "${NODE_PID[@]}"); do
        kill -0 "$pid" 2>/dev/null || return 1
    done
}

source "$OTTLA_ROOT/scripts/lib/cluster.sh"

# ---- counting -----------------------------------------------------------------------------------------------------

PASSED=0
FAILED=0
SKIPPED=0

pass() { PASSED=$((PASSED + 1)); printf 'ok    %s\n' "$1"; }
skip() { SKIPPED=$((SKIPPED + 1)); printf 'skip  %s: %s\n' "$1" "$2"; }
fail() {
    FAILED=$((FAILED + 1))
    printf 'FAIL  %s\n' "$1"
    [ -z "$2" ] || printf '%s\n' "$2" | tail -n "${FAIL_LINES:-15}" | sed 's/^/      | /'
}

# check NAME COMMAND... : one case; passes when COMMAND succeeds, else shows the end of what it wrote.
# In this shell, not in a sub-shell: COMMAND may start a broker.
check() {
    local name=$1
    shift
    scratch
    if "$@" >"$OTTLA_TMP/check.out" 2>&1; then pass "$name"; else fail "$name" "$(cat "$OTTLA_TMP/check.out")"; fi
}

# soon COMMAND... : whether it succeeds within 20 seconds, tried again and again.
soon() {
    local i
    for ((i = 0; i < 200; i++)); do
        "$@" && return 0
        sleep 0.1
    done
    echo "not within 20 s: $*"
    return 1
}

# count_lines : echoes stdin and counts its `ok `, `FAIL` and `skip` lines (written by a client program of a suite).
count_file() {
    PASSED=$((PASSED + $(grep -c '^ok ' "$1")))
    FAILED=$((FAILED + $(grep -c '^FAIL' "$1")))
    SKIPPED=$((SKIPPED + $(grep -c '^skip ' "$1")))
}

# program NAME SECONDS COMMAND... : runs a client program that writes one `ok`, `FAIL` or `skip` line a case and adds
# up its lines; dying without a FAIL line is a failure of its own.
program() {
    local name=$1 seconds=$2 status before=$FAILED out
    shift 2
    scratch
    out=$OTTLA_TMP/program.$RANDOM
    echo "-- $name"
    timeout -k 5 "$seconds" "$@" >"$out" 2>"$out.err"
    status=$?
    cat "$out"
    count_file "$out"
    if [ "$status" != 0 ] && [ "$FAILED" = "$before" ]; then
        fail "$name ended with status $status" "$(cat "$out.err")"
    elif [ "$FAILED" != "$before" ]; then
        tail -n "${FAIL_LINES:-15}" "$out.err" | sed 's/^/      | /'
    elif ! grep -q '^ok ' "$out"; then
        fail "$name ran nothing"
    fi
}

# finish : prints the score line that scripts/test reads and exits accordingly.
finish() {
    if [ -n "$BROKER_PID" ] && ! broker_alive; then
        fail "the broker died" "$(cat "$BROKER_DIR/broker.log")"
    fi
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
    exit
}
