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
