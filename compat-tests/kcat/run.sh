#!/usr/bin/env bash
# kcat 1.7.1 with librdkafka 2.0.2, both as Debian 12 ships them.
source "$(dirname "$0")/../../scripts/lib/env.sh"
apt_need kcat
start_broker num.partitions=3 offsets.topic.num.partitions=5 group.min.session.timeout.ms=1000 \
    group.initial.rebalance.delay.ms=300 || exit 1

K() { timeout -k 5 "${K_SECONDS:-30}" kcat -b "$BOOTSTRAP" -X broker.address.family=v4 "$@" 2>"$OTTLA_TMP/kcat.err"; }
same() { [ "$1" = "$2" ] || { diff <(echo "$2") <(echo "$1") | head -20; cat "$OTTLA_TMP/kcat.err"; return 1; }; }
has() { grep -qE -- "$2" <<<"$1" || { printf '%s\n(missing: %s)\n' "$1" "$2"; cat "$OTTLA_TMP/kcat.err"; return 1; }; }

metadata() { has "$(K -L)" "broker 1 at 127.0.0.1:$BROKER_PORT" && has "$(K -L -J)" '"controllerid":1'; }
auto_create() {
    echo one | K -P -t auto || return 1
    has "$(K -L -t auto)" 'topic "auto" with 3 partitions'
}
codec() {
    local lines
    lines=$(seq -f "$1 %g" 1 1000)
    # the first produce creates the topic
    K -P -t "codec-$1" -z "$1" -p 0 <<<"$lines" || return 1
    same "$(K -C -t "codec-$1" -p 0 -o beginning -e -q)" "$lines"
}
shapes() {
    printf 'k1:v1\nk2:\n' | K -P -t shapes -p 1 -K: -Z -H a=b -H c= || return 1
    same "$(K -C -t shapes -p 1 -o 0 -e -q -f '%k|%S|%s|%h|%p|%o\n')" $'k1|2|v1|a=b,c=|1|0\nk2|-1||a=b,c=|1|1'
}
acks() { echo "acks $1" | K -P -t "acks$1" -p 0 -X "acks=$1" && same "$(K -C -t "acks$1" -p 0 -o beginning -c 1 -q)" "acks $1"; }
idempotent() {
    seq 1 2000 | K -P -t idem -p 0 -X enable.idempotence=true || return 1
    same "$(K -C -t idem -p 0 -o beginning -e -q | md5sum)" "$(seq 1 2000 | md5sum)"
}
from_offset() { same "$(K -C -t idem -p 0 -o 1500 -c 3 -q)" $'1501\n1502\n1503'; }
from_end() { same "$(K -C -t idem -p 0 -o -2 -e -q)" $'1999\n2000'; }
by_time() {
    local stamp
    stamp=$(K -C -t idem -p 0 -o 700 -c 1 -q -f '%T\n') || return 1
    has "$(K -Q -t "idem:0:$stamp")" '^idem \[0\] offset [0-9]+$' &&
        same "$(K -Q -t idem:0:99999999999999)" 'idem [0] offset -1' &&
        same "$(K -Q -t idem:0:-2)" 'idem [0] offset 0' && same "$(K -Q -t idem:0:-1)" 'idem [0] offset 2000'
}
out_of_range() { same "$(K -C -t idem -p 0 -o 5000 -X auto.offset.reset=earliest -c 1 -q)" 1; }
unknown_partition() { ! K -C -t idem -p 77 -e -q && has "$(cat "$OTTLA_TMP/kcat.err")" 'Unknown partition|does not exist'; }
group() {
    # the balanced consumer reads all, commits on leaving, and a second run of the group finds nothing
    same "$(K -G readers -X auto.offset.reset=earliest -c 2000 -q idem | wc -l)" 2000 || return 1
    same "$(timeout 6 kcat -b "$BOOTSTRAP" -G readers -X auto.offset.reset=earliest -e -q idem 2>/dev/null | wc -l)" 0
}
# what a member was given last, as it says itself
share() { grep assigned: "$OTTLA_TMP/$1.err" | tail -n 1 | grep -o '\[[0-9]\]'; }
each_has_some() { [ -n "$(share a)" ] && [ -n "$(share b)" ] && [ "$(sort <(share a) <(share b) | tr -d '\n')" = '[0][1][2]' ]; }
all_read() { [ "$(cat "$OTTLA_TMP"/{a,b} | wc -l)" -ge 600 ]; }
two_members() {
    seq 1 300 | K -P -t shared -p -1 || return 1
    local a b
    timeout 60 kcat -b "$BOOTSTRAP" -u -G pair -X auto.offset.reset=earliest -f '%p %o\n' shared >"$OTTLA_TMP/a" 2>"$OTTLA_TMP/a.err" &
    a=$!
    timeout 60 kcat -b "$BOOTSTRAP" -u -G pair -X auto.offset.reset=earliest -f '%p %o\n' shared >"$OTTLA_TMP/b" 2>"$OTTLA_TMP/b.err" &
    b=$!
    kill_at_exit $a
    kill_at_exit $b
    soon each_has_some || return 1
    for part in 0 1 2; do seq 1 100 | K -P -t shared -p $part || return 1; done
    soon all_read
    kill $a $b
    wait $a $b
    same "$(sort "$OTTLA_TMP"/{a,b} | uniq -d | wc -l)" 0 && same "$(cat "$OTTLA_TMP"/{a,b} | wc -l)" 600 &&
        [ -s "$OTTLA_TMP/a" ] && [ -s "$OTTLA_TMP/b" ]
}
large() {
    head -c 900000 /dev/zero | tr '\0' x >"$OTTLA_TMP/large"
    K -P -t large -p 0 "$OTTLA_TMP/large" && same "$(K -C -t large -p 0 -o 0 -c 1 -q -f '%S\n')" 900000
}
too_large() {
    head -c 1500000 /dev/zero | tr '\0' x >"$OTTLA_TMP/large"
    ! K -P -t large -p 0 -X message.max.bytes=3000000 "$OTTLA_TMP/large"
    has "$(cat "$OTTLA_TMP/kcat.err")" 'Message size too large'
}

check "metadata" metadata
check "auto creation" auto_create
for c in none gzip snappy lz4 zstd; do check "1000 lines, $c" codec $c; done
check "keys, headers, null values" shapes
for a in 0 1 all; do check "acks=$a" acks $a; done
check "idempotent producer" idempotent
check "consume from an offset" from_offset
check "consume the last two" from_end
check "offsets by timestamp" by_time
check "offset out of range" out_of_range
check "unknown partition" unknown_partition
check "group reads, commits and resumes" group
check "two members share a topic" two_members
check "a message of 900 kB" large
check "a message that is too large" too_large
finish
