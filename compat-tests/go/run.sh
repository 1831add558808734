#!/usr/bin/env bash
# Go clients: franz-go (newest request versions), sarama (pinned to an old and to a new version), kafka-go (old versions).
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
command -v go >/dev/null || apt_need golang-go
scratch
export GOFLAGS=-mod=mod GOTOOLCHAIN=auto
PROGRAM=$OTTLA_CACHE/go-compat-$(cat ./*.go go.mod go.sum | sha256sum | cut -c1-12)
if [ ! -x "$PROGRAM" ]; then
    go build -o "$PROGRAM.$$" . 2>"$OTTLA_TMP/go.log" || { fail "go build" "$(cat "$OTTLA_TMP/go.log")"; finish; }
    mv "$PROGRAM.$$" "$PROGRAM"
fi
start_broker num.partitions=3 offsets.topic.num.partitions=10 group.min.session.timeout.ms=1000 \
    group.initial.rebalance.delay.ms=500 || exit 1
for client in franz sarama kafkago; do
    [ -n "$ONLY" ] && [ "$ONLY" != $client ] || program $client 300 "$PROGRAM" $client
done
finish
