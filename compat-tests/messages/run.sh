#!/usr/bin/env bash
# Samples of our own message and record definitions, in every version, read and written again by Apache Kafka's
# generated classes: the bytes must be the same.
source "$(dirname "$0")/../../scripts/lib/env.sh"
fetch_kafka || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$OTTLA_ROOT" || exit 1
OTTLA_MESSAGE_SAMPLES=$dir/samples cargo test -q --lib samples_for_kafkas_own_classes >"$dir/log" 2>&1 ||
    { cat "$dir/log"; exit 1; }
javac -cp "$KAFKA_HOME/libs/*" -d "$dir" compat-tests/messages/Check.java || exit 1
java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$dir:$KAFKA_HOME/libs/*" Check "$dir/samples"
