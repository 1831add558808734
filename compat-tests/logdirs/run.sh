#!/usr/bin/env bash
# Several log dirs: placement, directories that fail at the start and at run time, a full disk, replicas moved between
# directories. The disks are small tmpfs mounts: without the right to mount, those cases are skipped.
source "$(dirname "$0")/../../scripts/lib/env.sh"
apt_need kcat
fetch_kafka || exit 1
scratch
K() { timeout 20 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 -X message.timeout.ms=4000 "$@" 2>>"$OTTLA_TMP/kcat.err"; }
ktopics() { ktool topics --bootstrap-server "$BOOTSTRAP" "$@"; }
same() { [ "$1" = "$2" ] || { diff <(echo "$2") <(echo "$1") | head; return 1; }; }
# dirs NAME... : a fresh parent for log directories; sets ROOT and LOG_DIRS
dirs() {
    local name
    ROOT=$(mktemp -d "$OTTLA_TMP/disks.XXXXXX")
    LOG_DIRS=
    for name in "$@"; do mkdir "$ROOT/$name"; LOG_DIRS+=${LOG_DIRS:+,}$ROOT/$name/log; done
}
MOUNTED=()
mount_small() { mount -t tmpfs -o "size=$2" tmpfs "$1" 2>/dev/null && MOUNTED+=("$1"); }
unmount_all() {
    local dir
    for dir in "${MOUNTED[@]}"; do umount -l "$dir" 2>/dev/null; done
    MOUNTED=()
}
# may_mount : whether this user may
may_mount() {
    mkdir -p "$OTTLA_TMP/probe"
    mount -t tmpfs -o size=1m tmpfs "$OTTLA_TMP/probe" 2>/dev/null && umount "$OTTLA_TMP/probe"
}
broker() { start_broker "log.dirs=$LOG_DIRS" group.initial.rebalance.delay.ms=0 num.partitions=1 auto.create.topics.enable=false "$@"; }
create() { ktopics --create --topic "$1" --partitions "${2:-1}" "${@:3}" >/dev/null; }
# where TOPIC-PARTITION : which of the directories has it
where() { basename "$(dirname "$(dirname "$(ls -d "$ROOT"/*/log/"$1" 2>/dev/null)")")"; }
writes() { seq "$2" "$3" | K -P -t "$1" -p "${4:-0}"; }
reads() { same "$(K -C -t "$1" -p "${3:-0}" -o beginning -e -q | md5sum)" "$(seq 1 "$2" | md5sum)"; }
metric() { curl -s "http://$(sed -n 's/^ottla.http.listener=//p' "$BROKER_DIR/server.properties")/metrics" | grep -F "$1"; }
log_dirs() { ktool log-dirs --bootstrap-server "$BOOTSTRAP" --describe "$@" | tail -1; }
# refuses_log_dir TOPIC : producing fails with KAFKA_STORAGE_ERROR
log_has() { grep -qE "$1" "$BROKER_DIR/broker.log" || { tail -20 "$BROKER_DIR/broker.log"; return 1; }; }
exits_with() { # STATUS : the broker ends by itself with it
    local i
    for ((i = 0; i < 50; i++)); do broker_alive || break; sleep 0.1; done
    wait "$BROKER_PID"
    same "$?" "$1" && BROKER_PID=
}

echo "-- placement"
spread() {
    local i
    create spread 6 || return 1
    for i in 0 1 2 3 4 5; do where "spread-$i"; done | sort | uniq -c | awk '{ print $1 }' | sort -u
}
dirs a b c
if broker; then
    check "new partitions go where the fewest are" same "$(spread)" 2
    check "each directory has an id of its own" same "$(grep -h directory.id "$ROOT"/*/log/meta.properties | sort -u | wc -l)" 3
    check "a topic is written and read in each" writes spread 1 100 1
    check "and read" reads spread 100 1
fi
stop_broker

echo "-- directories that are missing at the start"
vanished() {
    local lost kept i
    for i in 0 1 2 3 4 5; do
        if [ "$(where "spread-$i")" = b ]; then lost=$i; else kept=$i; fi
    done
    mv "$ROOT/b/log" "$ROOT/b/gone"
    restart_broker || return 1
    log_has 'log directory cannot be used' || return 1
    writes spread 1 10 "$kept" || return 1
    ! writes spread 1 10 "$lost" || { echo "partition $lost is in a directory that is gone"; return 1; }
    [ ! -e "$ROOT/b/log" ] || { echo "a new directory in place of the one that is gone"; return 1; }
    ktopics --describe --topic spread | grep -P "Partition: $lost\tLeader: none" || { ktopics --describe --topic spread; return 1; }
    same "$(metric 'kafka_log_logmanager_offlinelogdirectorycount' | grep -v '#' | awk '{ print $NF }')" 1 || return 1
    same "$(metric logdirectoryoffline | grep -F "$ROOT/b/log" | awk '{ print $NF }')" 1 || return 1
    log_dirs | grep -qE '"logDir":"[^"]*/b/log","partitions":\[\],"error":"org.apache.kafka.common.errors.KafkaStorageException' || { log_dirs; return 1; }
    same "$(create later 3; for i in 0 1 2; do where "later-$i"; done | grep -c b)" 0
}
check "the broker does without one that vanished" vanished
back() {
    local i
    stop_broker
    mv "$ROOT/b/gone" "$ROOT/b/log"
    restart_broker || return 1
    for i in 0 1 2 3 4 5; do writes spread 1 10 "$i" || return 1; done
}
check "and takes it back" back
stop_broker
refuses_start() { # REGEX STATUS
    local status
    timeout 20 "$OTTLA_BIN" "$BROKER_DIR/server.properties" >"$BROKER_DIR/refused.log" 2>&1
    status=$?
    grep -qE "$1" "$BROKER_DIR/refused.log" || { tail -5 "$BROKER_DIR/refused.log"; return 1; }
    same "$status" "$2"
}
no_metadata() { mv "$ROOT/a/log" "$ROOT/a/gone"; refuses_start 'metadata log directory cannot be used' 1; }
if [ "$BROKER" = ottla ]; then
    check "no start without the metadata log's directory" no_metadata
    mv "$ROOT/a/gone" "$ROOT/a/log"
    unformatted() { mv "$ROOT/b/log" "$ROOT/b/gone"; mkdir "$ROOT/b/log"; refuses_start 'has no meta.properties' 78; }
    check "no start on an empty directory beside others" unformatted
    rm -rf "$ROOT/b/log"
    copied() { cp -r "$ROOT/c/log" "$ROOT/b/log"; refuses_start 'has the directory.id of another' 78; }
    check "no start on a copy of another directory" copied
    twice() { sed -i "s|^log.dirs=.*|&,$ROOT/c/../c/log|" "$BROKER_DIR/server.properties"; refuses_start 'the same directory as' 1; }
    rm -rf "$ROOT/b/log"; mv "$ROOT/b/gone" "$ROOT/b/log"
    check "no start with a directory named twice" twice
fi
finish
