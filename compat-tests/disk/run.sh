#!/usr/bin/env bash
# Data directories handed between Apache Kafka and Ottla, the two dump-log tools compared, and the bytes on disk compared.
#   run.sh [exchange] [bytes]    both parts, or the one named
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
[ "$BROKER" = ottla ] || { echo "compares both brokers"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
fetch_kafka || exit 1
KAFKA_BROKER_OPTS="-Xmx512m -Xms128m -XX:TieredStopAtLevel=1"
classes=$OTTLA_CACHE/disk-classes
mkdir -p "$classes"
if [ -n "$(find "$here/src" -name '*.java' -newer "$classes/Disk.class" 2>&1)" ]; then
    javac -nowarn -cp "$KAFKA_HOME/libs/*" -d "$classes" "$here"/src/*.java 2>"$classes/log" || { cat "$classes/log"; exit 1; }
fi
TIME=$((($(date +%s) - 7200) / 3600 * 3600000))
disk() {
    java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=ERROR -Dtime="$TIME" -cp "$classes:$KAFKA_HOME/libs/*" Disk "$@" 2>>"$OTTLA_TMP/client.log"
}
same_files() { cmp -s "$1" "$2" || { diff "$1" "$2" | cut -c1-300 | head -"${FAIL_LINES:-15}"; return 1; }; }

# ---- the same directory, in turn ------------------------------------------------------------------------------------

# stop_hard : kill -9, as a crash of the process.
stop_hard() {
    kill -9 "$BROKER_PID" 2>/dev/null
    wait "$BROKER_PID" 2>/dev/null
    BROKER_PID=
}
take_over() { # BROKER clean|hard : ends the running one and starts the other on the same directory
    if [ "$2" = hard ]; then stop_hard; else stop_broker; fi
    "_run_$1"
}
state_to() { disk state "$BOOTSTRAP" >"$1" || { tail -5 "$OTTLA_TMP/client.log"; return 1; }; }
populate() { disk populate "$BOOTSTRAP" "$1" "$2" || { tail -5 "$OTTLA_TMP/client.log"; return 1; }; }
acked() { cat "$OTTLA_TMP/stop.acked" 2>/dev/null || echo 0; }
producer_goes_on() { # within a minute
    local before i
    before=$(acked)
    for ((i = 0; i < 600; i++)); do
        [ "$(acked)" = "$before" ] || return 0
        sleep 0.1
    done
    return 1
}
committed='^records transactions-[01] read_committed '
sees_the_same() {
    state_to "$OTTLA_TMP/now" && diff <(grep -v "$committed" "$OTTLA_TMP/state") <(grep -v "$committed" "$OTTLA_TMP/now")
}
saw_the_same_committed() { diff <(grep "$committed" "$OTTLA_TMP/state") <(grep "$committed" "$OTTLA_TMP/now"); }
same_for() { # NAME : state as before
    check "$1" sees_the_same
    check "$1 of transactions" saw_the_same_committed
}

# dump_lists : the lines of dump-log arguments that show everything below the data directory.
dump_lists() {
    local data=$BROKER_DIR/data
    all() { find "$data" -path "$data/$1" | sort | paste -sd, -; }
    echo "--files $(all '*-[0-9]*/*.log') --deep-iteration"
    echo "--files $(all '*-[0-9]*/*.index'),$(all '*-[0-9]*/*.timeindex') --verify-index-only"
    echo "--files $(all '*-[0-9]*/*.index'),$(all '*-[0-9]*/*.timeindex') --index-sanity-check"
    echo "--files $(all 'codec-*/*.index'),$(all 'codec-*/*.timeindex')"
    echo "--files $(all '*-[0-9]*/*.snapshot'),$(all '*-[0-9]*/*.txnindex')"
    echo "--files $(all '__cluster_metadata-0/*.log'),$(all '__cluster_metadata-0/*.checkpoint'),$data/bootstrap.checkpoint --cluster-metadata-decoder"
    echo "--files $(all '__consumer_offsets-*/*.log') --offsets-decoder"
    echo "--files $(all '__transaction_state-*/*.log') --transaction-log-decoder"
    echo "--files $(all 'configured-*/*.log'),$(all 'codec-gzip-*/*.log') --print-data-log --skip-record-metadata --max-bytes 20000"
    echo "--files $data/meta.properties,$(all '*-0/leader-epoch-checkpoint' | cut -d, -f1)"
}
both_dump_the_same() {
    local line
    dump_lists | sed 's/--files ,*/--files /; s/,,*/,/g; s/, / /' | grep -v -- '--files --' >"$OTTLA_TMP/lists"
    LC_ALL=C.UTF-8 disk dump "$OTTLA_TMP/lists" 2>"$OTTLA_TMP/dump.kafka.err" >"$OTTLA_TMP/dump.kafka"
    while read -r line; do
        echo "== ${line:0:60}"
        # shellcheck disable=SC2086
        "$OTTLA_BIN" dump-log $line 2>>"$OTTLA_TMP/dump.ottla.err"
    done <"$OTTLA_TMP/lists" >"$OTTLA_TMP/dump.ottla"
    grep -c 'isvalid: true' "$OTTLA_TMP/dump.kafka"
    same_files "$OTTLA_TMP/dump.kafka" "$OTTLA_TMP/dump.ottla"
}

exchange() { # FIRST SECOND
    local first=$1 second=$2 name="$1 and $2" load stopped i n commit
    BROKER=$first start_broker group.initial.rebalance.delay.ms=0 offsets.topic.num.partitions=2 \
        transaction.state.log.num.partitions=2 log.cleaner.enable=false || { fail "$name: start"; return; }
    check "$name: $first is filled" populate 1 "$first"
    check "$name: in several segments" test "$(find "$BROKER_DIR/data/codec-none-0" -name '*.log' | wc -l)" -gt 2
    check "$name: $first tells its state" state_to "$OTTLA_TMP/state"
    check "$name: $second takes over after a clean stop" take_over "$second" clean
    broker_alive || { stop_broker; return; }
    same_for "$name: $second sees the same"
    check "$name: $second is filled on" populate 2 "$second"
    check "$name: $second tells its state" state_to "$OTTLA_TMP/state"
    check "$name: $first takes back after a kill" take_over "$first" hard
    broker_alive || { stop_broker; return; }
    same_for "$name: $first sees the same"
    check "$name: $first is filled on" populate 3 "$first"
    check "$name: $first tells its state" state_to "$OTTLA_TMP/state"

    disk load "$BOOTSTRAP" "$OTTLA_TMP/stop" >"$OTTLA_TMP/loaded" &
    load=$!
    kill_at_exit "$load"
    check "$name: a producer starts" producer_goes_on
    for i in clean hard clean; do # there and back three times
        check "$name: $second takes over under load ($i)" take_over "$second" "$i"
        check "$name: the producer goes on" producer_goes_on
        check "$name: $first takes back under load ($i)" take_over "$first" "$i"
        check "$name: the producer goes on again" producer_goes_on
    done
    touch "$OTTLA_TMP/stop"
    wait "$load"
    stopped=$?
    rm "$OTTLA_TMP/stop" "$OTTLA_TMP/stop.acked"
    read -r n commit <"$OTTLA_TMP/loaded"
    check "$name: the producer ends well" [ "$stopped" = 0 ]
    check "$name: nothing is lost or doubled ($n records)" disk verify "$BOOTSTRAP" "$n" "$commit"
    same_for "$name: the rest is unharmed"
    check "$name: $second takes over again" take_over "$second" clean
    same_for "$name: $second sees the same again"
    stop_broker
    check "$name: both dump the same" both_dump_the_same
}

parts=("$@")
[ $# -gt 0 ] || parts=(exchange bytes)
for part in "${parts[@]}"; do
    case $part in
    exchange)
        exchange kafka ottla
        exchange ottla kafka
        ;;
    bytes) source "$here/bytes.sh" ;;
    *) echo "no such part: $part" >&2; exit 2 ;;
    esac
done
finish
