#!/usr/bin/env bash
# 10,000 partitions with one segment each, created, written to and started again: within 20,000 descriptors and 4 KiB of
# resident memory a partition.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
source "$here/../../scripts/lib/loadgen.sh"
need_loadgen || exit 1
# What is counted here is memory and descriptors: no disk has to sync 10,000 files for that.
[ ! -d /dev/shm ] || export TMPDIR=/dev/shm
PARTITIONS=10000
ulimit -n 20000 || { echo "0 passed, 0 failed, 1 skipped"; exit 0; }

descriptors() { find "/proc/$BROKER_PID/fd" -mindepth 1 2>/dev/null | wc -l; }
resident_kib() { awk '$1 == "VmRSS:" { print $2 }' "/proc/$BROKER_PID/status"; }
few_descriptors() { echo "$(descriptors) descriptors"; [ "$(descriptors)" -le 20000 ]; }
little_memory() { # more than when idle, for all of them
    local more=$(($(resident_kib) - IDLE))
    echo "$more KiB more for $PARTITIONS partitions"
    [ "$more" -le $((4 * PARTITIONS)) ]
}
told() { check "$1" "${@:2}"; sed 's/^/      | /' "$OTTLA_TMP/check.out"; } # with the figure
topics() { "$LOADGEN" --broker "$BOOTSTRAP" topics --partitions "$PARTITIONS" "$@"; }
segments() { find "$BROKER_DIR/data" -name '00000000000000000000.log' -path '*/many-*' "$@" | wc -l; }
all_there() { [ "$(segments)" = "$PARTITIONS" ] && [ "$(segments -size +0)" = "$1" ]; }

start_broker || exit 1
IDLE=$(resident_kib)
check "10,000 partitions are created" topics
check "one empty segment each" all_there 0
told "created: descriptors" few_descriptors
told "created: memory" little_memory
check "one record to each" topics --append
check "one segment with a record each" all_there "$PARTITIONS"
told "written to: descriptors" few_descriptors
told "written to: memory" little_memory
stop_broker
check "the broker starts again" restart_broker
told "started: descriptors" few_descriptors
told "started: memory" little_memory
check "one more record to each" topics --append
told "written to again: descriptors" few_descriptors
finish
