#!/usr/bin/env bash
# A system clock that jumps under a running broker, by days and years, forwards and backwards: libfaketime lies to the process,
# and only to it, about the time of day. Nothing may hang, no client may be thrown out, and nothing may be deleted but what is
# old by the new time.
here=$(cd "$(dirname "$0")" && pwd)
source "$here/../../scripts/lib/env.sh"
source "$here/../../scripts/lib/loadgen.sh"
# A JVM does not get ready under libfaketime.
[ "$BROKER" = ottla ] || { echo "only for ottla"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
apt_need kcat faketime
fetch_kafka || exit 1
need_loadgen || exit 1
scratch
K() { timeout 20 kcat -b "$BOOTSTRAP" -X broker.address.family=v4 -X message.timeout.ms=5000 "$@" 2>>"$OTTLA_TMP/kcat.err"; }

# clock OFFSET : what the broker takes for now, as "+3d", "-2h" or "+0"
clock() { echo "$1" >"$OTTLA_TMP/clock.new" && mv "$OTTLA_TMP/clock.new" "$OTTLA_TMP/clock"; }
LIBRARY=$(dpkg -L libfaketime | grep 'libfaketime\.so\.1$')
faked() { # COMMAND... : with that clock. Monotonic clocks do not jump
    LD_PRELOAD=$LIBRARY FAKETIME_TIMESTAMP_FILE=$OTTLA_TMP/clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
        NO_FAKE_STAT=1 "$@"
}
JUMPS=(+2d -30d +0 -5y +3y -1h +0)

create() { ktool topics --bootstrap-server "$BOOTSTRAP" --create --topic "$1" --partitions 1 "${@:2}"; }
offset() { K -Q -t "$1:0:$2" | sed 's/.* offset //'; } # TOPIC -2|-1
starts_at() { [ "$(offset "$1" -2)" = "$2" ]; }
segments() { find "$BROKER_DIR/data/$1-0" -name '*.log' | wc -l; }
writes() { seq "$2" | K -P -t "$1" -p 0; } # TOPIC COUNT

lies() { # the broker stamps records with the clock it is given
    create stamped --config message.timestamp.type=LogAppendTime || return 1
    clock -30d; writes stamped 1; clock +30d; writes stamped 1; clock +0; writes stamped 1
    K -C -t stamped -o beginning -e -f '%T\n' >"$OTTLA_TMP/stamps"
    awk -v now="$(date +%s000)" '{ d = int(($1 - now) / 86400000 + ($1 < now ? -0.5 : 0.5)); printf "%d ", d }' "$OTTLA_TMP/stamps" | grep -qx -- '-30 30 0 ' || { cat "$OTTLA_TMP/stamps"; return 1; }
}

# ---- clients over jumps -----------------------------------------------------------------------------------------------

# A group member holds out over all jumps. No long poll of its is answered more than 2.5 s late: it would tell.
member_starts() {
    create watched && writes watched 1 || return 1
    kcat -b "$BOOTSTRAP" -X broker.address.family=v4 -X session.timeout.ms=6000 -X heartbeat.interval.ms=500 -X auto.commit.interval.ms=200 \
        -X fetch.wait.max.ms=500 -X socket.timeout.ms=3000 -X auto.offset.reset=earliest -u -G watchers watched >"$OTTLA_TMP/member" 2>"$OTTLA_TMP/member.err" &
    kill_at_exit $!
    MEMBER=$!
    soon grep -q 1 "$OTTLA_TMP/member"
}
sees() { [ "$(wc -l <"$OTTLA_TMP/member")" = "$1" ]; }
committed() { ktool consumer-groups --bootstrap-server "$BOOTSTRAP" --describe --group watchers | awk -v n="$1" '$2 == "watched" { ok = $4 == n } END { exit !ok }'; }
member_stays() { # it still reads and commits, and never had to join again
    local n
    kill -0 "$MEMBER" || return 1
    n=$(offset watched -1)
    sees "$n" && soon committed "$n" && [ "$(grep -c 'rebalanced' "$OTTLA_TMP/member.err")" = 1 ] &&
        ! grep -i 'timed out\|REQTMOUT' "$OTTLA_TMP/member.err" || { cat "$OTTLA_TMP/member.err"; return 1; }
}
jumps_under_load() {
    local to
    for to in "${JUMPS[@]}"; do
        clock "$to"
        all_go_on || { echo "producers at $to"; return 1; }
        writes watched 1 || { echo "a new producer at $to"; return 1; }
        soon sees "$(offset watched -1)" || { echo "the group at $to"; return 1; }
        sleep 1
    done
}
kept_in_the_past() { # kill -9, and up again a year earlier
    clock -1y
    kill -9 "$BROKER_PID"; wait "$BROKER_PID" 2>/dev/null
    faked restart_broker && all_go_on
}

# ---- what the time of day decides -------------------------------------------------------------------------------------

expiry() { # by the time of the records, forwards; a jump backwards deletes nothing and stops nothing
    create day --config retention.ms=86400000 && create month --config retention.ms=2592000000 && writes day 50 && writes month 50 || return 1
    clock -10d; sleep 1; starts_at day 0 || { echo "deleted by a jump backwards"; return 1; }
    clock +12h; sleep 1; starts_at day 0 || { echo "deleted before its time"; return 1; }
    clock +2d; soon starts_at day 50 && starts_at month 0 || return 1
    clock +0
}
future_records() { # more than message.timestamp.after.max.ms ahead of the broker
    create strict --config message.timestamp.after.max.ms=3600000 && clock -2h || return 1
    ! writes strict 1 || { echo "taken"; return 1; }
    clock +0; writes strict 1
}
rolling() { # segment.ms by the broker's time where that is the records': one segment forwards, none backwards
    create rolls --config message.timestamp.type=LogAppendTime --config segment.ms=600000 && writes rolls 1 && writes rolls 1 || return 1
    [ "$(segments rolls)" = 1 ] || return 1
    clock +1h; for _ in 1 2 3; do writes rolls 1; done
    [ "$(segments rolls)" = 2 ] || { echo "$(segments rolls) segments after a jump forwards"; return 1; }
    clock -2d; for _ in 1 2 3; do writes rolls 1; done
    [ "$(segments rolls)" = 2 ] || { echo "$(segments rolls) segments after a jump backwards"; return 1; }
    clock +0; writes rolls 1; [ "$(offset rolls -1)" = 9 ]
}
idle() { # connections.max.idle.ms goes by a clock that does not jump
    clock "$1"
    exec 7<>"/dev/tcp/${BOOTSTRAP/:/\/}" || return 1
    printf '\0\0\0\012\0\022\0\0\0\0\0\001\377\377' >&7 # ApiVersions: the broker has the connection when it answers
    timeout 15 head -c 4 <&7 >/dev/null || return 1
    clock "$2"
    local start=$SECONDS
    timeout 15 cat <&7 >/dev/null || { echo "never closed"; return 1; }
    exec 7>&-
    [ $((SECONDS - start)) -ge 2 ] && [ $((SECONDS - start)) -le 10 ] || { echo "closed after $((SECONDS - start)) s"; return 1; }
}
deletes() { # a topic's files go when the clock went back in between
    create gone && writes gone 10 && ktool topics --bootstrap-server "$BOOTSTRAP" --delete --topic gone && clock -3d || return 1
    soon no_trace gone && clock +0
}
no_trace() { ! ls -d "$BROKER_DIR/data/$1"* 2>/dev/null; }
syncs() { # acks wait for a sync, and flush.ms goes on, at any time of day
    create synced --config flush.messages=1 && create flushed --config flush.ms=100 || return 1
    for to in -3d +3d +0; do clock $to; writes synced 5 && writes flushed 5 || return 1; done
}

clock +0
faked start_broker group.initial.rebalance.delay.ms=0 num.partitions=1 offsets.topic.num.partitions=2 \
    log.message.timestamp.after.max.ms=9223372036854775807 log.retention.check.interval.ms=200 log.initial.task.delay.ms=200 \
    log.retention.ms=-1 log.segment.delete.delay.ms=500 log.cleaner.backoff.ms=200 group.min.session.timeout.ms=1000 \
    connections.max.idle.ms=5000 || exit 1
check "the broker believes the clock" lies
check "retention goes by the time of the records" expiry
check "records from the future are refused" future_records
check "segments roll once when the clock jumps forwards, not when it jumps backwards" rolling
check "idle connections end after a jump forwards, not at once" idle +0 +5d
check "and after a jump backwards" idle +5d +0
check "deleted topics go from disk" deletes
check "syncs go on" syncs
start_load "$OTTLA_TMP/acknowledged" --cleanup
check "a member joins" member_starts
check "producers, a group and long polls over ${JUMPS[*]}" jumps_under_load
check "the member was never thrown out" member_stays
check "kill -9, and the next start is a year earlier" kept_in_the_past
check "nothing acknowledged is lost" nothing_lost
end_load
finish
