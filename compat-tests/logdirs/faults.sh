# Sourced by run.sh: log dirs that get full, read-only or lost under a running broker, and come back. A load goes on all the
# while (four idempotent producers, committed offsets, topics created and deleted), and at the end everything that was
# acknowledged must be there once and in order.
#
# Each log dir is a bind mount of a small tmpfs, so that it can vanish and come back with what it has.
source "$here/../../scripts/lib/loadgen.sh"
need_loadgen || exit 1

# begin DIR... : a broker on these log dirs, each on a disk of its own, under load
begin() {
    local dir
    dirs "$@"
    for dir in "$@"; do
        mkdir "$ROOT/disk-$dir"
        mount_small "$ROOT/disk-$dir" 48m && mount --bind "$ROOT/disk-$dir" "$ROOT/$dir" && MOUNTED+=("$ROOT/$dir") || return 1
    done
    broker offsets.topic.num.partitions=2 replica.high.watermark.checkpoint.interval.ms=500 || return 1
    start_load "$ROOT/acknowledged"
}
partitions_in() { local p; for p in 0 1 2 3; do [ "$(where "crash-$p")" != "$1" ] || echo "$p"; done; }
has_gone() { log_has "stopping serving logs in log directory.*$ROOT/$1/log" >/dev/null; }
others_serve() { # DIR : it is given up, and the partitions elsewhere go on, those in it do not
    local p before
    soon has_gone "$1" && broker_alive || { tail -n 5 "$BROKER_DIR/broker.log"; return 1; }
    for p in $LOST; do before+=" $(acked "$p")"; done
    for p in $LEFT; do goes_on "$p" || return 1; done
    same "$(for p in $LOST; do printf ' %s' "$(acked "$p")"; done)" "$before"
}
again() { stop_broker; restart_broker && for p in $LEFT; do goes_on "$p" || return 1; done; }
end() {
    end_load
    stop_broker
    unmount_all
}

# What happens to log dir $1 under the broker, and how it comes back.
fill_up() { dd if=/dev/zero of="$ROOT/disk-$1/ballast" bs=1M count=100 2>/dev/null; df --output=avail "$ROOT/$1" | grep -qx ' *0'; }
free_up() { rm "$ROOT/disk-$1/ballast"; }
turn_read_only() { mount --bind "$ROOT/disk-$1" "$ROOT/$1" && mount -o remount,ro,bind "$ROOT/$1"; }
turn_writable() { umount -l "$ROOT/$1"; }
vanish() { umount -l "$ROOT/$1"; }
come_back() { mount --bind "$ROOT/disk-$1" "$ROOT/$1"; }

# fault NAME BREAK MEND : to one of two log dirs, and to the only one
fault() {
    local name=$1 breaks=$2 mends=$3
    if begin a b; then
        LOST=$(partitions_in b) LEFT=$(partitions_in a)
        check "$name: it happens to one of two" "$breaks" b
        check "$name: the partitions in the other go on" others_serve b
        check "$name: so they do after a restart" again
        mended() { stop_broker; "$mends" b && restart_broker; }
        check "$name: the broker takes it back" mended
        check "$name: nothing acknowledged is lost" nothing_lost
    else
        fail "$name: no broker under load"
    fi
    end
    if begin a; then
        check "$name: it happens to the only one" "$breaks" a
        check "$name: the broker ends" exits_with 1
        log_has 'log directory' >/dev/null || fail "$name: the log says why" "$(tail -n 5 "$BROKER_DIR/broker.log")"
        # Where a log dir is not there at all, a broker that has only this one begins anew.
        [ "$breaks" = vanish ] || check "$name: nor does it start" refuses_start "$ROOT/a/log" 1
        check "$name: once mended" "$mends" a
        check "$name: it starts" restart_broker
        check "$name: with everything acknowledged" nothing_lost
    else
        fail "$name: no broker under load"
    fi
    end
}
fault "a full disk" fill_up free_up
fault "a read-only log dir" turn_read_only turn_writable
fault "a log dir that vanishes" vanish come_back

# rm -rf : what was there is gone for good, the rest is served on
if begin a b; then
    LOST=$(partitions_in b) LEFT=$(partitions_in a)
    check "rm -rf of one of two" rm -rf "$ROOT/b/log"
    check "rm -rf: the partitions in the other go on" others_serve b
    check "rm -rf: so they do after a restart" again
fi
end
if begin a; then
    check "rm -rf of the only one" rm -rf "$ROOT/a/log"
    check "rm -rf: the broker ends" exits_with 1
fi
end
