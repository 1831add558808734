# Sourced by run.sh: the same record stream to both brokers, then their files byte by byte.
#
# What may differ, and why:
#   partition.metadata             the topic id is random: its form is compared
#   replication- and recovery-point-offset-checkpoint and the like
#                                  Kafka writes them in the order of a hash map: compared sorted, and without the metadata log,
#                                  whose length depends on time, and what one side does not have yet
#   transactional-0                Ottla has no transaction coordinator yet and refuses transactional batches from clients, so
#                                  there is nothing to compare: instead Ottla makes indexes and snapshots of Kafka's log anew
#   compacted-gzip-0               a batch that lost records is compressed again, by another implementation of gzip: compared as
#                                  dump-log shows it, without sizes, positions and CRCs; compacted-0 has no compressed batch

properties=(log.retention.check.interval.ms=500 log.initial.task.delay.ms=500 log.cleaner.backoff.ms=200
    log.cleaner.enable=true log.message.timestamp.type=CreateTime transaction.partition.verification.enable=false
    log.flush.offset.checkpoint.interval.ms=1000 log.cleaner.dedupe.buffer.size=8000000)
told() { "$@" || { tail -3 "$OTTLA_TMP/client.log"; return 1; }; }
writes() { # BROKER : the stream to a fresh broker, in all its parts
    local broker=$1
    BROKER=$broker start_broker "${properties[@]}" || { fail "bytes: $broker starts"; return 1; }
    check "bytes: $broker takes the stream" told disk stream "$BOOTSTRAP"
    [ "$broker" = ottla ] || check "bytes: $broker takes transactions" told disk stream-transactional "$BOOTSTRAP"
    check "bytes: $broker compacts" told disk settle "$BROKER_DIR/data" cleaner
    if [ "$broker" = kafka ]; then
        check "bytes: kafka retains" told disk settle "$BROKER_DIR/data" retention
    else
        check "bytes: ottla retains" told disk settle "$BROKER_DIR/data" retention
    fi
    stop_broker
}
TOPICS=(plain-0 plain-1 codecs-0 idempotent-0 index-full-0 by-time-0 no-timestamps-0 preallocated-0 deleted-records-0
    compacted-0)
names_in() { (cd "$1" && find . -type f ! -name '*.deleted' | sort); }
same_dir() { # DIR : every file of a partition directory, byte by byte
    local a=$KAFKA_DATA/$1 b=$OTTLA_DATA/$1 name failed=0
    [ -n "$KAFKA_DATA" ] && [ -n "$OTTLA_DATA" ] && [ -d "$a" ] || return 1
    diff <(names_in "$a") <(names_in "$b") || failed=1
    for name in $(names_in "$a"); do
        [ -e "$b/$name" ] || continue
        case $name in
        ./partition.metadata) cmp <(sed 's/^topic_id: .\{22\}$/topic_id/' "$a/$name") <(sed 's/^topic_id: .\{22\}$/topic_id/' "$b/$name") ;;
        *) cmp "$a/$name" "$b/$name" ;;
        esac || failed=1
    done
    return $failed
}
# rebuilt : a copy of Kafka's directory as after a crash that left logs only; Ottla recovers it. In REBUILT.
rebuilt() {
    local from=${KAFKA_DATA%/data}
    BROKER_DIR=$OTTLA_TMP/rebuilt
    REBUILT=$BROKER_DIR/data
    mkdir "$BROKER_DIR"
    cp -a "$KAFKA_DATA" "$REBUILT"
    sed "s|^log.dirs=.*|log.dirs=$REBUILT|" "$from/server.properties" >"$BROKER_DIR/server.properties"
    BROKER_PORT=$(sed -nE 's|^listeners=PLAINTEXT://127.0.0.1:([0-9]+),.*|\1|p' "$BROKER_DIR/server.properties")
    rm "$REBUILT/.kafka_cleanshutdown" "$REBUILT/recovery-point-offset-checkpoint"
    rm "$REBUILT"/{plain,by-time,idempotent,transactional}-0/*.{index,timeindex,snapshot} "$REBUILT"/transactional-0/*.txnindex
    _start_ottla || return 1
    stop_broker
}
same_rebuilt() { # DIR : indexes of every segment, and the producer snapshot at the end
    local a=$KAFKA_DATA/$1 b=$REBUILT/$1 name failed=0
    [ -d "$a" ] && [ -d "$b" ] || return 1
    for name in $(names_in "$a" | grep -E 'log$|index$'; names_in "$a" | grep 'snapshot$' | tail -1); do
        cmp "$a/$name" "$b/$name" || failed=1
    done
    return $failed
}
same_checkpoint() {
    local without='^__cluster_metadata |^transactional |^retained-by-'
    [ -e "$KAFKA_DATA/$1" ] || return 1
    diff <(grep -vE "$without" "$KAFKA_DATA/$1" | tail -n +3 | sort) <(grep -vE "$without" "$OTTLA_DATA/$1" | tail -n +3 | sort)
}
same_compacted() { # DIR
    local name
    diff <(names_in "$KAFKA_DATA/$1") <(names_in "$OTTLA_DATA/$1") || return 1
    [ "$(names_in "$OTTLA_DATA/$1" | grep -c 'log$')" -gt 1 ] || { echo "one segment only"; return 1; }
    for name in $(names_in "$KAFKA_DATA/$1" | grep 'log$'); do
        diff <(contents "$KAFKA_DATA/$1/$name") <(contents "$OTTLA_DATA/$1/$name") || return 1
    done
}
contents() { "$OTTLA_BIN" dump-log --files "$1" --print-data-log 2>/dev/null | sed -E '1d; s/ (position|size|crc): [0-9]+//g'; }
sound() { "$OTTLA_BIN" dump-log --verify --files "$1" | tail -1; "$OTTLA_BIN" dump-log --verify --files "$1" >/dev/null; }

writes kafka
KAFKA_DATA=$BROKER_DIR/data
writes ottla
OTTLA_DATA=$BROKER_DIR/data
for dir in "${TOPICS[@]}"; do check "bytes: $dir" same_dir "$dir"; done
for dir in retained-by-size-0 retained-by-time-0; do check "bytes: $dir" same_dir "$dir"; done
check "bytes: compacted-gzip-0, without the codec's own choices" same_compacted compacted-gzip-0
check "bytes: ottla recovers kafka's logs without indexes and snapshots" rebuilt
for dir in plain-0 by-time-0 idempotent-0; do check "bytes: $dir, made anew from the log" same_rebuilt "$dir"; done
check "bytes: transactional-0, made anew from the log" same_rebuilt transactional-0
for name in recovery-point-offset-checkpoint log-start-offset-checkpoint replication-offset-checkpoint cleaner-offset-checkpoint; do
    check "bytes: $name" same_checkpoint "$name"
done
check "bytes: what kafka wrote is sound to dump-log --verify" sound "$KAFKA_DATA"
check "bytes: what ottla wrote is sound to dump-log --verify" sound "$OTTLA_DATA"

# ---- scrub: one damaged byte in a closed segment ----------------------------------------------------------------------

damage() { printf '\xff' | dd of="$OTTLA_DATA/plain-0/00000000000000000000.log" bs=1 seek=100000 conv=notrunc status=none; }
metrics() { python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' "http://$HTTP/metrics"; }
scrub_ran() {
    local i
    for ((i = 0; i < 300; i++)); do
        metrics >"$OTTLA_TMP/metrics"
        grep -q '^ottla_log_scrub_runs_total [1-9]' "$OTTLA_TMP/metrics" && return 0
        sleep 0.1
    done
    return 1
}
finding_of() { grep -E "^ottla_log_scrub_findings\{topic=\"$1\",partition=\"0\"\} $2\$" "$OTTLA_TMP/metrics"; }
starts_with_scrub() {
    BROKER_DIR=${OTTLA_DATA%/data}
    BROKER_PORT=$(sed -nE 's|^listeners=PLAINTEXT://127.0.0.1:([0-9]+),.*|\1|p' "$BROKER_DIR/server.properties")
    HTTP=$(sed -nE 's|^ottla.http.listener=||p' "$BROKER_DIR/server.properties")
    printf '%s\n' ottla.log.scrub.interval.ms=50 ottla.log.scrub.io.max.bytes.per.second=1000000000 >>"$BROKER_DIR/server.properties"
    _run_ottla
}
verify_fails() { ! "$OTTLA_BIN" dump-log --verify --files "$OTTLA_DATA/plain-0"; }
damage
check "scrub: the broker starts with it on" starts_with_scrub
check "scrub: a run ends" scrub_ran
check "scrub: the damaged partition is told" finding_of plain '[1-9][0-9]*'
check "scrub: the others are sound" finding_of codecs 0
check "scrub: the log says where" grep -q 'scrub found damage tp=plain-0' "$BROKER_DIR/broker.log"
stop_broker
check "scrub: dump-log --verify fails" verify_fails
