#!/usr/bin/env bash
# The `ottla` command itself: starting as kafka-server-start does, storage format and info, stop, lock, restart, /metrics.
source "$(dirname "$0")/../../scripts/lib/env.sh"
[ "$BROKER" = ottla ] || { echo "only for ottla"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
apt_need kcat
scratch
cd "$OTTLA_TMP" || exit 1
has() { grep -qE -- "$2" <<<"$1" || { printf '%s\n(missing: %s)\n' "$1" "$2"; return 1; }; }
status_is() { # WANT COMMAND... : the exit status, the output stays visible
    local want=$1 got
    shift
    timeout 20 "$@"
    got=$?
    [ "$got" = "$want" ] || { echo "status $got, want $want"; return 1; }
}

# what Apache Kafka ships as config/server.properties, in its keys and values; only ports and directory are moved aside
stock() {
    cat <<-END
	process.roles=broker,controller
	node.id=1
	controller.quorum.bootstrap.servers=localhost:9093
	listeners=PLAINTEXT://:9092,CONTROLLER://:9093
	inter.broker.listener.name=PLAINTEXT
	advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
	controller.listener.names=CONTROLLER
	listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
	num.network.threads=3
	num.io.threads=8
	socket.send.buffer.bytes=102400
	socket.receive.buffer.bytes=102400
	socket.request.max.bytes=104857600
	log.dirs=$OTTLA_TMP/stock
	num.partitions=1
	num.recovery.threads.per.data.dir=2
	offsets.topic.replication.factor=1
	share.coordinator.state.topic.replication.factor=1
	share.coordinator.state.topic.min.isr=1
	transaction.state.log.replication.factor=1
	transaction.state.log.min.isr=1
	log.retention.hours=168
	log.segment.bytes=1073741824
	log.retention.check.interval.ms=300000
	END
}
stock >server.properties
BROKER_DIR=$OTTLA_TMP
BROKER_PORT=$(free_port)
HTTP_PORT=$(free_port)
controller=$(free_port)
ARGS=(server.properties
    --override "listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller"
    --override "advertised.listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller"
    --override "controller.quorum.bootstrap.servers=127.0.0.1:$controller"
    --override "ottla.http.listener=127.0.0.1:$HTTP_PORT")
BOOTSTRAP=127.0.0.1:$BROKER_PORT
start() {
    "$OTTLA_BIN" "$@" >>broker.log 2>&1 &
    BROKER_PID=$!
    _wait_ready
}
stops_well() { # SIGTERM ends it with status 0 within two seconds and leaves the clean-shutdown file
    local pid=$BROKER_PID begin
    BROKER_PID=
    begin=$(date +%s%N)
    kill "$pid"
    wait "$pid" || { echo "status $?"; return 1; }
    [ $((($(date +%s%N) - begin) / 1000000)) -lt 2000 ] || { echo "slow"; return 1; }
    [ -e stock/.kafka_cleanshutdown ] || { ls -a stock; return 1; }
}
K() { timeout 20 kcat -b "$BOOTSTRAP" "$@"; }

uuid() { has "$("$OTTLA_BIN" storage random-uuid)" '^[-_A-Za-z0-9]{22}$'; }
check "storage random-uuid" uuid
info_unformatted() { has "$(status_is 1 "$OTTLA_BIN" storage info -c server.properties)" 'does not exist|not formatted'; }
check "storage info before formatting" info_unformatted
ID=$("$OTTLA_BIN" storage random-uuid)
check "storage format" status_is 0 "$OTTLA_BIN" storage format --standalone -t "$ID" -c server.properties
check "storage format twice is refused" status_is 1 "$OTTLA_BIN" storage format --standalone -t "$ID" -c server.properties
check "storage format --ignore-formatted" status_is 0 "$OTTLA_BIN" storage format -g --standalone -t "$ID" -c server.properties
info() { has "$(status_is 0 "$OTTLA_BIN" storage info -c server.properties)" "cluster.id=$ID.*node.id=1"; }
check "storage info" info
check "Kafka's own server.properties starts" start "${ARGS[@]}"
cluster_id() { has "$(K -L -J)" '"controllerid":1' && grep -q "cluster.id=$ID" stock/meta.properties; }
check "it is the cluster that was formatted" cluster_id
produce() { seq 1 100 | K -P -t words -p 0 && [ "$(K -C -t words -p 0 -o 0 -e -q | wc -l)" = 100 ]; }
check "produce and consume" produce
# a second process on the same directory, on other ports
second() {
    local out
    out=$(timeout 10 "$OTTLA_BIN" "${ARGS[@]}" --override "listeners=PLAINTEXT://127.0.0.1:$(free_port),CONTROLLER://127.0.0.1:$(free_port)" \
        --override "ottla.http.listener=" 2>&1)
    local status=$?
    [ $status != 0 ] && [ $status != 124 ] || { echo "status $status: $out"; return 1; }
    has "$out" 'lock'
}
check "a second process on the log dir is refused" second
metrics() { has "$(curl -sf "http://127.0.0.1:$HTTP_PORT/metrics")" '^kafka_server_brokertopicmetrics_messagesin(persec)?_total'; }
check "/metrics" metrics
check "SIGTERM: exit 0, quick, clean-shutdown file" stops_well
check "restart" start "${ARGS[@]}"
again() { [ "$(K -C -t words -p 0 -o 0 -e -q | md5sum)" = "$(seq 1 100 | md5sum)" ]; }
check "records stand after a restart" again
kill -9 "$BROKER_PID"
wait "$BROKER_PID" 2>/dev/null
check "restart after kill -9" start server "${ARGS[@]}"
check "records stand after kill -9" again
more() { seq 101 200 | K -P -t words -p 0 && [ "$(K -C -t words -p 0 -o 0 -e -q | md5sum)" = "$(seq 1 200 | md5sum)" ]; }
check "produce goes on after kill -9" more
check "stops again" stops_well
printf 'node.id=1\nnum.partitions=many\n' >bad.properties
bad() { has "$(status_is 78 "$OTTLA_BIN" bad.properties 2>&1)" 'num.partitions'; }
check "a wrong value: named, exit 78" bad
check "a missing file: exit 78" status_is 78 "$OTTLA_BIN" missing.properties
check "an unknown flag: exit 1" status_is 1 "$OTTLA_BIN" --nonsense
# What kafka-storage prints and returns, ours does.
fetch_kafka || exit 1
same() { # ARGS...
    local ours theirs
    ours=$(timeout 20 "$OTTLA_BIN" storage "$@" 2>/dev/null; echo "status $?")
    theirs=$(ktool storage "$@" 2>/dev/null; echo "status $?")
    [ "$ours" = "$theirs" ] || { diff <(echo "$ours") <(echo "$theirs"); return 1; }
}
for release in '' '-r 4.3' '-r 4.0.1' '-r 3.9-IV0' '-r 1.0'; do
    check "storage version-mapping $release" same version-mapping $release
done
check "storage feature-dependencies" same feature-dependencies -f metadata.version=23 -f eligible.leader.replicas.version=1 -f group.version=1
check "storage feature-dependencies of what there is not" same feature-dependencies -f group.version=1 -f group.version=7
sed "s|^log.dirs=.*|log.dirs=$OTTLA_TMP/formatted|" server.properties >format.properties
# by their checksums, by which raft knows them, the second comes first
listed=1@localhost:9093:BXEbrUW4RQuXaRJ03ylcjg,2@localhost:19093:c-H5cpesQsCeeMPeBHmC8w
formats_alike() { # ARGS... : the same output, and the same features, voters and directory id
    local tool kind file mask=
    # the directory id of the only voter is chance
    [ "$1" != -s ] || mask='s/voterDirectoryId":"[^"]*"//'
    for kind in ours theirs; do
        tool=("$OTTLA_BIN" storage)
        [ $kind = ours ] || tool=(ktool storage)
        rm -rf formatted
        { "${tool[@]}" format -c format.properties -t "$ID" "$@" || echo "status $?"; } >"$kind.out" 2>/dev/null
        [ -d formatted ] || continue
        for file in $(find formatted -name '*.checkpoint' | sort); do
            echo "$file"
            "$OTTLA_BIN" dump-log --cluster-metadata-decoder --files "$file" | grep -oE '"type":.*|KRaftVoters.*' | sed "$mask"
        done >>"$kind.out"
        grep -q "$(sed -n 's/^directory.id=//p' formatted/meta.properties | tr -d '\\')" <<<"$listed" && echo "as listed" >>"$kind.out"
    done
    diff ours.out theirs.out
}
check "storage format as Kafka's" formats_alike -s
check "storage format, a feature that there is not" formats_alike -s -f group.version=9
check "storage format, a feature too new for the release" formats_alike -s -r 3.9 -f eligible.leader.replicas.version=1
check "storage format, one of the initial controllers" formats_alike -I "$listed"
check "storage format, none of the initial controllers" formats_alike -I "${listed#*,}"
check "storage format, no initial controllers" formats_alike -N
check "storage format, a release and features" formats_alike -s -r 4.0 -f group.version=0
check "no SCRAM yet" status_is 1 "$OTTLA_BIN" storage format -c format.properties -t "$ID" -s -S 'SCRAM-SHA-256=[name=a,password=b]'
features() { # of the directory that Kafka's tool formatted last
    local shown
    start "${ARGS[@]}" --override "log.dirs=$OTTLA_TMP/formatted" || return 1
    shown=$(ktool features --bootstrap-server "$BOOTSTRAP" describe)
    has "$shown" 'metadata.version.*FinalizedVersionLevel: 4.0-IV3' && has "$shown" 'transaction.version.*FinalizedVersionLevel: 2' &&
        has "$shown" 'group.version.*FinalizedVersionLevel: 0'
}
check "a cluster begins with the features that Kafka's tool formatted" features
kill "$BROKER_PID"
wait "$BROKER_PID"
source "$OTTLA_ROOT/compat-tests/cli/dockerfile.sh"
no_file() {
    BROKER_PORT=$(free_port)
    BOOTSTRAP=127.0.0.1:$BROKER_PORT
    start --override "listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$(free_port)" \
        --override "log.dirs=$OTTLA_TMP/nofile" --override ottla.http.listener= &&
        echo x | K -P -t words -p 0 && [ "$(K -C -t words -p 0 -o 0 -e -q)" = x ]
}
check "no file at all: formats itself" no_file
finish
