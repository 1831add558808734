#!/usr/bin/env bash
# The same logs, compacted by Apache Kafka and by Ottla, compared byte by byte: twice, so that clean segments are merged and
# tombstones and markers whose time has come go. What may differ and why: see compare.py. Last, a log that cannot be cleaned.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
[ "$BROKER" = ottla ] || { echo "only for ottla"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
apt_need lz4 zstd
fetch_kafka || exit 1
classes=$OTTLA_CACHE/compaction-classes
mkdir -p "$classes"
javac -nowarn -cp "$KAFKA_HOME/libs/*" -d "$classes" "$here/Generate.java" || exit 1
TOPICS=(none stamped transactions gzip snappy lz4 zstd)

properties() { # key=value... : replaces or adds lines of the broker's file
    local line
    for line in "$@"; do
        sed -i "/^${line%%=*}=/d" "$BROKER_DIR/server.properties"
        echo "$line" >>"$BROKER_DIR/server.properties"
    done
}

create() {
    local topic
    for topic in "${TOPICS[@]}"; do
        ktool topics --bootstrap-server "$BOOTSTRAP" --create --topic "$topic" --partitions 1 \
            --config cleanup.policy=compact --config segment.bytes=1048576 --config min.cleanable.dirty.ratio=0.01 \
            --config delete.retention.ms=1 \
            --config message.timestamp.type="$([ "$topic" = stamped ] && echo LogAppendTime || echo CreateTime)" || return 1
    done
}

generate() { timeout 100 java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=ERROR -cp "$classes:$KAFKA_HOME/libs/*" Generate "$BOOTSTRAP" "$1"; }

last_segment() { basename "$(ls "$1"/*.log | sort | tail -1)" .log | sed 's/^0*//'; }

cleaned() { # DIR : until every log is clean up to its active segment
    local topic i
    for ((i = 0; i < 300; i++)); do
        for topic in "${TOPICS[@]}"; do
            grep -qx "$topic 0 $(last_segment "$1/$topic-0")" "$1/cleaner-offset-checkpoint" 2>/dev/null || break
            [ "$topic" != "${TOPICS[-1]}" ] || return 0
        done
        sleep 0.2
    done
    cat "$1/cleaner-offset-checkpoint"
    return 1
}

compact_with() { # BROKER DIR : compacts a copy of the data directory with a broker
    rm -rf "$2"
    cp -a "$BROKER_DIR/data" "$2"
    properties "log.dirs=$2" log.cleaner.backoff.ms=100 log.cleaner.enable=true
    "_run_$1" || return 1
    cleaned "$2"
    local status=$?
    stop_broker
    properties "log.dirs=$BROKER_DIR/data" log.cleaner.enable=false
    return $status
}

same() { # TOPIC [recompressed]
    python3 "$here/compare.py" "$BROKER_DIR/kafka/$1-0" "$BROKER_DIR/ottla/$1-0" "${@:2}"
}

indexes_are_sane() {
    local logs out
    logs=$(ls "$BROKER_DIR"/ottla/{gzip,lz4,transactions}-0/*.{log,index,timeindex} | paste -sd,)
    out=$(ktool dump-log --files "$logs" --index-sanity-check 2>&1)
    grep -q 'passed sanity check' <<<"$out" && ! grep -qi 'mismatch\|exception\|corrupt' <<<"$out" || { tail <<<"$out"; return 1; }
}

compare_all() {
    local topic
    check "$1: Apache Kafka compacts" compact_with kafka "$BROKER_DIR/kafka"
    check "$1: Ottla compacts" compact_with ottla "$BROKER_DIR/ottla"
    for topic in none stamped transactions; do check "$1: $topic, every byte" same "$topic"; done
    for topic in gzip snappy lz4 zstd; do check "$1: $topic, every record" same "$topic" recompressed; done
    check "$1: indexes pass kafka-dump-log" indexes_are_sane
}

BROKER=kafka start_broker log.cleaner.enable=false offsets.topic.num.partitions=1 transaction.state.log.num.partitions=1 || exit 1
check "topics" create
check "Apache Kafka writes" generate 1
stop_broker
properties "ottla.http.listener=127.0.0.1:$(free_port)"
compare_all "first cleaning"

# What Kafka cleaned is the ground for the second one; horizons of the first are in the past then.
rm -rf "$BROKER_DIR/data"
mv "$BROKER_DIR/kafka" "$BROKER_DIR/data"
_run_kafka || exit 1
check "Apache Kafka writes more" generate 2
stop_broker
compare_all "second cleaning"

# One damaged byte in a closed segment that was not cleaned yet.
marks_the_damaged() {
    local dir=$BROKER_DIR/damaged segment
    rm -rf "$dir"
    cp -a "$BROKER_DIR/data" "$dir"
    segment=$(ls "$dir"/none-0/*.log | sort | tail -2 | head -1)
    printf '\xff' | dd of="$segment" bs=1 seek=$(($(stat -c %s "$segment") / 2)) conv=notrunc status=none
    properties "log.dirs=$dir" log.cleaner.backoff.ms=100 log.cleaner.enable=true
    _run_ottla || return 1
    soon uncleanable "$dir" 1 && metrics | grep -E '^kafka_log_logcleanermanager_uncleanable_bytes\{[^}]*\} [1-9]' || return 1
    # The others are cleaned all the same.
    local TOPICS=("${TOPICS[@]:1}")
    cleaned "$dir" && uncleanable "$dir" 1
}
metrics() { python3 -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())' "http://$HTTP/metrics"; }
uncleanable() { metrics | grep -xF "kafka_log_logcleanermanager_uncleanable_partitions_count{logDirectory=\"$1\"} $2"; }
HTTP=$(sed -nE 's|^ottla.http.listener=||p' "$BROKER_DIR/server.properties" | tail -1)
check "a damaged log is marked uncleanable, and metrics say so" marks_the_damaged
stop_broker
finish
