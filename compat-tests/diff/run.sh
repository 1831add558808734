#!/usr/bin/env bash
# The same requests to Ottla and to Apache Kafka, the answers compared field by field. See README.md.
#   run.sh [--only REGEX]            Ottla against the golden files
#   run.sh --live [--only REGEX]     Ottla against an Apache Kafka started beside it
#   run.sh --record [--only REGEX]   writes the golden files from Apache Kafka
#   --broker HOST:PORT               a broker that runs already, instead of a fresh one
# With NODES=3 the cases of cases-3/ on three nodes each.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib/env.sh"

mode=check broker='' args=()
while [ $# -gt 0 ]; do
    case $1 in
    --live | --record) mode=${1#--} ;;
    --broker) broker=$2; shift ;;
    --only) args+=(--only "$2"); shift ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
    esac
    shift
done

fetch_kafka || exit 1
classes=$OTTLA_CACHE/diff-$(cat "$here"/src/*.java | sha256sum | cut -c1-12)
mkdir -p "$classes"
if [ ! -e "$classes/Diff.class" ]; then
    javac -nowarn -cp "$KAFKA_HOME/libs/*" -d "$classes" "$here"/src/*.java 2>"$classes/log" || { cat "$classes/log"; exit 1; }
fi

properties=(group.initial.rebalance.delay.ms=200)
[ "$NODES" = 1 ] || properties+=(offsets.topic.num.partitions=6 leader.imbalance.check.interval.seconds=3600)
# address : of what start_broker started
address() {
    local id all=
    [ "$NODES" != 1 ] || { echo "$BOOTSTRAP"; return; }
    for id in $NODE_IDS; do all+=${all:+,}127.0.0.1:${NODE_PORT[id]}:${NODE_CONTROLLER_PORT[id]}; done
    echo "$all"
}
if [ "$mode" = live ]; then
    BROKER=kafka start_broker "${properties[@]}" || exit 1
    kill_at_exit "$BROKER_PID"
    args+=(--kafka "$(address)")
    BROKER_PID=
fi
[ "$mode" = record ] && BROKER=kafka
if [ -z "$broker" ]; then
    start_broker "${properties[@]}" || exit 1
    broker=$(address)
fi
java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=ERROR -cp "$classes:$KAFKA_HOME/libs/*" \
    Diff "$mode" --broker "$broker" --dir "$here" ${args[@]+"${args[@]}"}
status=$?
BROKER_PID=${BROKER_PID:-}
[ -z "$BROKER_PID" ] || broker_alive || { echo "FAIL the broker died"; tail -5 "$BROKER_DIR/broker.log"; status=1; }
exit $status
