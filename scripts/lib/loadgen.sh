# For scripts that drive a broker with the loadgen binary; source after env.sh.

LOADGEN=${LOADGEN:-$(dirname "$OTTLA_BIN")/loadgen}

# need_loadgen : builds it when it is not there.
need_loadgen() {
    [ -x "$LOADGEN" ] || (cd "$OTTLA_ROOT" && cargo build --release --bin loadgen) || return 1
}

# check_panics : a failure when the broker's log tells of a panic.
check_panics() {
    local n
    n=$(grep -a -c 'panicked at' "$BROKER_DIR/broker.log")
    if [ "$n" = 0 ]; then pass "no panics"; else fail "$n panics" "$(grep -a -A3 'panicked at' "$BROKER_DIR/broker.log" | head -20)"; fi
}

# start_load DIR [crash-writer's arguments] : idempotent producers, commits, topics that come and go, until nothing_lost; what
# was acknowledged is written down in DIR.
start_load() {
    LOAD_DIR=$1 LOAD_ARGS=("${@:2}")
    mkdir -p "$LOAD_DIR"
    "$LOADGEN" --broker "$BOOTSTRAP" crash-writer --dir "$LOAD_DIR" "${LOAD_ARGS[@]}" >"$LOAD_DIR/writer" 2>&1 &
    WRITER=$!
    kill_at_exit "$WRITER"
    soon test -e "$LOAD_DIR/topics"
}
acked() { wc -l <"$LOAD_DIR/crash-$1"; } # PARTITION : batches
went_on() { [ "$(acked "$1")" -gt "$2" ]; }
goes_on() { soon went_on "$1" $(($(acked "$1") + 20)); } # PARTITION
all_go_on() { local p; for p in 0 1 2 3; do goes_on "$p" || return 1; done; }
nothing_lost() { # everybody goes on; then the load ends
    all_go_on || return 1
    touch "$LOAD_DIR/stop"
    wait "$WRITER" || { cat "$LOAD_DIR/writer"; return 1; }
    "$LOADGEN" --broker "$BOOTSTRAP" crash-verify --dir "$LOAD_DIR" "${LOAD_ARGS[@]}"
}
end_load() {
    kill -9 "$WRITER" 2>/dev/null
    wait "$WRITER" 2>/dev/null
}
