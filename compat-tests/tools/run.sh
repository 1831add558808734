#!/usr/bin/env bash
# Apache Kafka's own tools on three nodes; what they print is compared with what they print on three Apache Kafka nodes.
#   run.sh [NAME...]            the transcripts cases/NAME.txt (all of them) against Ottla
#   run.sh --record [NAME...]   writes the transcripts' answers anew, from Apache Kafka
here=$(cd "$(dirname "$0")" && pwd)
export NODES=3
source "$here/../../scripts/lib/env.sh"
mode=check
[ "$1" != --record ] || { mode=record BROKER=kafka; shift; }
fetch_kafka || exit 1
classes=$OTTLA_CACHE/tools-$(cat "$here"/src/*.java | sha256sum | cut -c1-12)
mkdir -p "$classes"
if [ ! -e "$classes/Tools.class" ]; then
    javac -nowarn -cp "$KAFKA_HOME/libs/*" -d "$classes" "$here"/src/*.java 2>"$classes/log" || { cat "$classes/log"; exit 1; }
fi
files=()
for name in "$@"; do files+=("$here/cases/$name.txt"); done
[ $# -gt 0 ] || files=("$here"/cases/*.txt)
start_broker num.partitions=2 auto.create.topics.enable=false offsets.topic.num.partitions=3 \
    group.initial.rebalance.delay.ms=0 broker.session.timeout.ms=6000 broker.heartbeat.interval.ms=500 \
    replica.lag.time.max.ms=4000 leader.imbalance.check.interval.seconds=3600 || exit 1
nodes=
for id in $NODE_IDS; do
    nodes+="$id=${NODE_PORT[id]}:${NODE_CONTROLLER_PORT[id]}:${NODE_PID[id]}:${NODE_DIR[id]} "
done
start=$OTTLA_BIN
[ "$BROKER" = ottla ] || start="java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp $KAFKA_HOME/libs/* kafka.Kafka"
java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=OFF -Dnodes="$nodes" \
    -Dstart="$start" -Dpids="$OTTLA_TMP/pids" -cp "$classes:$KAFKA_HOME/libs/*" Tools "$mode" "${files[@]}"
status=$?
for pid in $(cat "$OTTLA_TMP/pids" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
exit $status
