#!/usr/bin/env bash
# One data directory, worked on in turn by Apache Kafka and Ottla: each must open and go on with what the other wrote.
source "$(dirname "$0")/../../scripts/lib/env.sh"
[ "$BROKER" = ottla ] || { echo "only for ottla"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
apt_need kcat
fetch_kafka || exit 1
K() { timeout 30 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 "$@" 2>>"$OTTLA_TMP/kcat.err"; }
ktopics() { ktool topics --bootstrap-server "$BOOTSTRAP" "$@"; }
same() { [ "$1" = "$2" ] || { diff <(echo "$2") <(echo "$1") | head; tail -3 "$OTTLA_TMP/kcat.err"; return 1; }; }
take_over() { # BROKER : stops the running one and starts the other on the same directory
    stop_broker
    "_run_$1"
}
write() { seq "$1" "$2" | K -P -t numbers -p 0 -z "$3" -X enable.idempotence=true; }
reads_up_to() { same "$(K -C -t numbers -p 0 -o 0 -e -q | md5sum)" "$(seq 1 "$1" | md5sum)"; }
group_reads() { same "$(K -G readers -X auto.offset.reset=earliest -c "$1" -q numbers | tail -1)" "$2"; }
config_stands() { ktopics --describe --topic numbers | grep -q 'retention.ms=123456789'; }
topic_id() { ktopics --describe --topic numbers | grep -oE 'TopicId: [^[:space:]]+'; }
dump() {
    local out
    out=$(ktool dump-log --files "$BROKER_DIR/data/numbers-0/00000000000000000000.log,$BROKER_DIR/data/numbers-0/00000000000000000000.index,$BROKER_DIR/data/numbers-0/00000000000000000000.timeindex" --index-sanity-check 2>&1)
    grep -q 'passed sanity check' <<<"$out" && ! grep -qi 'mismatch\|exception\|corrupt' <<<"$out" || { echo "$out" | tail; return 1; }
}

run() { # FIRST SECOND
    local first=$1 second=$2 name="$1, $2, $1" id
    BROKER=$first start_broker group.initial.rebalance.delay.ms=0 offsets.topic.num.partitions=3 || { fail "$name: start"; return; }
    ktopics --create --topic numbers --partitions 1 --config retention.ms=123456789 >/dev/null
    id=$(topic_id)
    check "$name: $first writes" write 1 1000 lz4
    check "$name: $first group reads and commits" group_reads 300 300
    check "$name: $second takes over" take_over "$second"
    broker_alive || { stop_broker; return; }
    check "$name: $second reads" reads_up_to 1000
    check "$name: $second has the config" config_stands
    check "$name: $second has the topic id" same "$(topic_id)" "$id"
    check "$name: $second goes on with the group" group_reads 300 600
    check "$name: $second appends" write 1001 2000 zstd
    check "$name: $first takes back" take_over "$first"
    broker_alive || { stop_broker; return; }
    check "$name: $first reads all" reads_up_to 2000
    check "$name: $first goes on with the group" group_reads 300 900
    check "$name: $first appends" write 2001 2100 none
    check "$name: $first reads that too" reads_up_to 2100
    stop_broker # a running Kafka keeps its index files at full length
    check "$name: log and indexes pass kafka-dump-log" dump
}
run ottla kafka
run kafka ottla
finish
