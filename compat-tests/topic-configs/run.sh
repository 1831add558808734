#!/usr/bin/env bash
# Every topic config that has an effect: changed on a running broker, and the effect seen. README's table names what is here.
#   run.sh [CONFIG...]
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
fetch_kafka || exit 1
classes=$OTTLA_CACHE/topic-configs-classes
mkdir -p "$classes"
javac -nowarn -cp "$KAFKA_HOME/libs/*" -d "$classes" "$here/TopicConfigs.java" || exit 1
start_broker log.retention.check.interval.ms=200 log.initial.task.delay.ms=200 log.cleaner.backoff.ms=200 log.cleaner.threads=2 \
    log.flush.scheduler.interval.ms=100 log.flush.interval.ms=9223372036854775807 log.flush.offset.checkpoint.interval.ms=200 || exit 1
program "topic configs" 200 java -Xmx400m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=OFF \
    -cp "$classes:$KAFKA_HOME/libs/*" TopicConfigs "$BOOTSTRAP" "$BROKER_DIR/data" "$@"
finish
