#!/usr/bin/env bash
# Several log dirs: placement, directories that fail at the start and at run time, a full disk, replicas moved between
# directories. The disks are small tmpfs mounts: without the right to mount, those cases are skipped.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
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
    for ((i = 0; i < 200; i++)); do broker_alive || break; sleep 0.1; done
    ! broker_alive || { tail -5 "$BROKER_DIR/broker.log"; return 1; }
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
    log_dirs | grep -qE '"partitions":\[\],"error":"[^"]*KafkaStorageException","logDir":"[^"]*/b/log"' || { log_dirs; return 1; }
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

echo "-- replicas that move between directories"
# move TOPIC-PARTITION DIR ARGS... : by kafka-reassign-partitions, as an operator does
reassign() {
    local tp=$1 dir=$2
    printf '{"version":1,"partitions":[{"topic":"%s","partition":%s,"replicas":[1],"log_dirs":["%s"]}]}' \
        "${tp%-*}" "${tp##*-}" "$ROOT/$dir/log" >"$OTTLA_TMP/move.json"
    ktool reassign-partitions --bootstrap-server "$BOOTSTRAP" --reassignment-json-file "$OTTLA_TMP/move.json" "${@:3}"
}
moved() { # TOPIC-PARTITION DIR : within ten seconds
    local i
    for ((i = 0; i < 100; i++)); do [ "$(where "$1")" = "$2" ] && return 0; sleep 0.1; done
    ls "$ROOT"/*/log; tail -5 "$BROKER_DIR/broker.log"
    return 1
}
has_future() { ls -d "$ROOT/$2/log/$1".*-future >/dev/null 2>&1; }
other() { [ "$1" = a ] && echo b || echo a; }
dirs a b
if broker log.segment.bytes=1048576 file.delete.delay.ms=100; then
    create big 1; create small 1
    seq 1 300000 | K -P -t big -p 0
    writes small 1 100
    S=$(where small-0); B=$(where big-0)
    execute() {
        local out
        out=$(reassign small-0 "$(other "$S")" --execute) || { echo "$out"; return 1; }
        grep -q 'Successfully started moving log directory to .* for replica small-0' <<<"$out" || { echo "$out"; return 1; }
        moved small-0 "$(other "$S")"
    }
    check "kafka-reassign-partitions moves a replica" execute
    verify() { reassign small-0 "$(other "$S")" --verify | grep 'Reassignment of replica small-0-1 completed successfully'; }
    check "and sees it moved" verify
    check "its records are there" reads small 100
    check "it goes on" writes small 101 200
    check "and is read on" reads small 200
    lags() {
        has_future big-0 "$(other "$B")" && log_dirs --topic-list big | tee "$OTTLA_TMP/described" |
            grep -qE '"partition":"big-0","size":[1-9][0-9]*,"offsetLag":[1-9][0-9]*,"isFuture":true'
    }
    slow() {
        reassign big-0 "$(other "$B")" --execute --replica-alter-log-dirs-throttle 200000 | grep -q 'Successfully started moving' || return 1
        soon lags || { ls "$ROOT"/*/log; cat "$OTTLA_TMP/described"; return 1; }
        reassign big-0 "$(other "$B")" --verify --preserve-throttles | grep 'Reassignment of replica big-0-1 is still in progress'
    }
    check "a throttled move shows its lag" slow
    check "the replica serves meanwhile" reads big 300000
    cancel() {
        reassign big-0 "$B" --execute --replica-alter-log-dirs-throttle 200000 >/dev/null || return 1
        ! has_future big-0 "$(other "$B")" && [ "$(where big-0)" = "$B" ]
    }
    check "asking for the old directory cancels it" cancel
    resume() {
        reassign big-0 "$(other "$B")" --execute --replica-alter-log-dirs-throttle 1000000 >/dev/null || return 1
        kill -9 "$BROKER_PID"; wait "$BROKER_PID" 2>/dev/null
        restart_broker || return 1
        moved big-0 "$(other "$B")" && reads big 300000
    }
    check "a kill -9 in between: the next process goes on" resume
    no_future() { ! ls -d "$ROOT"/*/log/*-future 2>/dev/null; }
    check "nothing is left behind" soon no_future
    unknown() {
        sed -i 's|"log_dirs":.*|"log_dirs":["/nowhere"]}]}|' "$OTTLA_TMP/move.json"
        ktool reassign-partitions --bootstrap-server "$BOOTSTRAP" --reassignment-json-file "$OTTLA_TMP/move.json" \
            --execute --timeout 2000 2>&1 | grep -E 'LogDirNotFoundException|not.*configured'
    }
    check "a directory that is none of log.dirs is refused" unknown
fi
stop_broker

echo "-- disks that fail while the broker runs"
if may_mount; then
    dirs a b
    mount_small "$ROOT/b" 24m
    if broker log.segment.bytes=16777216; then
        create t 4
        full() {
            local i on_a on_b
            for i in 0 1 2 3; do if [ "$(where "t-$i")" = b ]; then on_b=$i; else on_a=$i; fi; done
            for i in 1 2 3 4 5 6; do
                head -c 6000000 /dev/urandom | base64 -w 900 | K -P -t t -p "$on_b" || break
            done
            log_has 'stopping serving logs in log directory' || return 1
            ! writes t 1 10 "$on_b" || { echo "the full disk still takes records"; return 1; }
            writes t 1 10 "$on_a" && reads t 10 "$on_a" || return 1
            broker_alive || return 1
            ktopics --describe --topic t | grep -qP "Partition: $on_b\tLeader: none" || { ktopics --describe --topic t; return 1; }
            create after 4
            for i in 0 1 2 3; do writes after 1 10 "$i" || return 1; done
        }
        check "a full disk takes its partitions offline, the others go on" full
        freed() {
            stop_broker
            rm -f "$ROOT"/b/log/*/*.index.tmp
            umount "$ROOT/b" 2>/dev/null || true
            restart_broker
        }
        check "the broker starts without the disk" freed
    fi
    stop_broker
    unmount_all
    dirs a b
    mount_small "$ROOT/a" 24m; mount_small "$ROOT/b" 24m
    if broker log.segment.bytes=16777216; then
        create t 2
        for i in 0 1; do if [ "$(where "t-$i")" = b ]; then on_b=$i; else on_a=$i; fi; done
        read_only() {
            stop_broker
            mount -o remount,ro "$ROOT/b" || return 1
            restart_broker || return 1
            log_has 'log directory cannot be used' || return 1
            ! writes t 1 10 "$on_b" || { echo "the read-only disk takes records"; return 1; }
            writes t 1 10 "$on_a"
        }
        check "the broker starts without a disk that is read-only" read_only
        halt() {
            for i in 1 2 3 4 5 6; do
                head -c 6000000 /dev/urandom | base64 -w 900 | K -P -t t -p "$on_a" || break
            done
            exits_with 1 && log_has 'the metadata log directory .* has failed'
        }
        check "a full disk under the metadata log: the process ends with status 1" halt
    fi
    stop_broker
    unmount_all
    source "$here/faults.sh"
else
    for case in "a full disk" "a read-only disk" "the metadata log's disk"; do skip "$case" "may not mount a tmpfs here"; done
fi
finish
