#!/usr/bin/env bash
# Retention as a stock tool sets it: the earliest offset moves, or does not, while the broker runs.
source "$(dirname "$0")/../../scripts/lib/env.sh"
apt_need kcat
fetch_kafka || exit 1
MIB=1048576
START=(log.segment.bytes=$MIB log.retention.ms=-1 log.retention.check.interval.ms=300 log.initial.task.delay.ms=300
    num.partitions=1)
K() { timeout 20 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 "$@"; }
# set_config TOPIC SETTINGS : as an operator does it
set_config() { ktool configs --bootstrap-server "$BOOTSTRAP" --alter --entity-type topics --entity-name "$1" --add-config "$2"; }
# fill TOPIC COUNT : records of 1000 bytes
fill() { yes "$(printf '%0999d' 0)" | head -n "$2" | K -P -t "$1" -p 0; }
# offset TOPIC earliest|latest
offset() {
    local at=-2
    [ "$2" = earliest ] || at=-1
    K -Q -t "$1:0:$at" | sed 's/.* offset //'
}
segments() { find "$BROKER_DIR/data/$1-0" -name '*.log' | wc -l; }
starts_at() { [ "$(offset "$1" earliest)" = "$2" ]; }
starts_inside() { [ "$(offset "$1" earliest)" -gt 0 ] && [ "$(offset "$1" earliest)" -lt "$(offset "$1" latest)" ]; }

keeps_bytes() { # what is left is as much as was asked for, and no segment more
    local left
    fill size 5000 && starts_at size 0 && [ "$(segments size)" -ge 4 ] && set_config size retention.bytes=$((2 * MIB)) || return 1
    soon starts_inside size || return 1
    left=$((($(offset size latest) - $(offset size earliest)) * 1000))
    [ "$left" -ge $((19 * MIB / 10)) ] && [ "$left" -le $((3 * MIB)) ]
}
expires() { # all of it, the active segment too
    fill time 3000 && starts_at time 0 && set_config time retention.ms=1000 && soon starts_at time 3000
}
nothing_without_policy() { # KIP-1161. When the other topic has expired, this one has been looked at as well
    fill kept 3000 && set_config kept cleanup.policy=,retention.ms=1000,retention.bytes=0 || return 1
    fill time 100 && soon starts_at time 3100 && sleep 1 && starts_at kept 0
}
deletes_records() {
    echo '{"partitions":[{"topic":"kept","partition":0,"offset":1500}],"version":1}' >"$OTTLA_TMP/until.json"
    ktool delete-records --bootstrap-server "$BOOTSTRAP" --offset-json-file "$OTTLA_TMP/until.json" && starts_at kept 1500
}
deletes_again() { set_config kept cleanup.policy=delete && soon starts_at kept 3000; }
rolls_by_size() {
    fill rolls 1 && set_config rolls segment.bytes=$((8 * MIB)) && fill rolls 3000 && [ "$(segments rolls)" = 1 ]
}

start_broker "${START[@]}" || exit 1
check "retention.bytes keeps that much" keeps_bytes
check "retention.ms empties a topic, active segment and all" expires
check "the empty cleanup.policy keeps everything" nothing_without_policy
check "kafka-delete-records moves the start under the empty cleanup.policy" deletes_records
check "cleanup.policy=delete takes effect at the next check" deletes_again
check "segment.bytes counts from its change on" rolls_by_size
finish
