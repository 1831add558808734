# For suites that ask Apache Kafka's own tools, most of them on several nodes. Sourced after env.sh.

# says NAME REGEX COMMAND... : one case: success, and each line of REGEX somewhere in the output.
says() { check "$1" _says "${@:2}"; }
# shows NAME REGEX COMMAND... : the same within 20 seconds: of several nodes, each hears of a change in its own time.
shows() { check "$1" eventually 20 _says "${@:2}"; }
# refuses NAME REGEX COMMAND... : wants the text only; not every tool sets a bad exit status.
refuses() { check "$1" _refuses "${@:2}"; }

# matches TEXT REGEX : whether each line of REGEX is somewhere in the text.
matches() {
    local out=$1 regex=$2 line
    while IFS= read -r line; do
        grep -qE -- "$line" <<<"$out" || { printf '%s\n(missing: %s)\n' "$out" "$line"; return 1; }
    done <<<"$regex"
}
_says() {
    local regex=$1 out status
    shift
    out=$("$@" 2>&1 </dev/null)
    status=$?
    [ "$status" = 0 ] || { printf '%s\n(status %s)\n' "$out" "$status"; return 1; }
    matches "$out" "$regex"
}
_refuses() {
    local regex=$1 out
    shift
    out=$("$@" 2>&1 </dev/null)
    matches "$out" "$regex"
}

# eventually SECONDS COMMAND... : until it succeeds, or what it wrote last. In a sub-shell: COMMAND only looks.
eventually() {
    local end=$((SECONDS + $1)) out
    shift
    until out=$("$@" 2>&1); do
        [ "$SECONDS" -lt "$end" ] || { printf 'never: %s\n%s\n' "$*" "$out"; return 1; }
        sleep 0.1
    done
}
is() { [ "$("${@:2}" 2>/dev/null)" = "$1" ]; } # TEXT COMMAND... : whether it writes just that
silent() { local out; out=$("$@" 2>/dev/null) && [ -z "$out" ]; } # COMMAND... : whether it succeeds and writes nothing
another() { local id; id=$("${@:2}") && [ -n "$id" ] && [ "$id" != "$1" ]; } # ID COMMAND... : whether it writes another one

# ---- a stock producer whose acknowledged records must all be there ---------------------------------------------------

# start_sending TOPIC RECORDS_PER_SECOND : idempotent, with acks=all, until nothing_lost.
start_sending() {
    SENT_TOPIC=$1
    "$KAFKA_HOME/bin/kafka-verifiable-producer.sh" --bootstrap-server "$BOOTSTRAP" --topic "$1" --throughput "$2" --acks -1 \
        >"$OTTLA_TMP/sent.json" 2>"$OTTLA_TMP/sent.err" &
    SENDER=$!
    kill_at_exit "$SENDER"
}
acked() { grep -c producer_send_success "$OTTLA_TMP/sent.json"; }
at_least() { echo "$(acked) of $1 are acknowledged"; [ "$(acked)" -ge "$1" ]; }
# acknowledged N : N more records are acknowledged within half a minute.
acknowledged() { eventually 30 at_least $(($(acked) + $1)); }
# nothing_lost : ends the producer. Every acknowledged record is there, and none twice.
nothing_lost() {
    local end
    kill "$SENDER"
    wait "$SENDER"
    end=$(ktool get-offsets --bootstrap-server "$BOOTSTRAP" --topic "$SENT_TOPIC" | awk -F: '{ s += $3 } END { print s }')
    KTOOL_SECONDS=120 ktool console-consumer --bootstrap-server "$BOOTSTRAP" --topic "$SENT_TOPIC" --from-beginning \
        --max-messages "$end" --timeout-ms 60000 2>/dev/null | sort >"$OTTLA_TMP/read"
    grep producer_send_success "$OTTLA_TMP/sent.json" | sed 's/.*"value":"\([0-9]*\)".*/\1/' | sort >"$OTTLA_TMP/acked"
    echo "$end records, $(wc -l <"$OTTLA_TMP/acked") acknowledged"
    [ -s "$OTTLA_TMP/acked" ] || return 1
    comm -13 "$OTTLA_TMP/read" "$OTTLA_TMP/acked" | sed 's/^/lost: /' >"$OTTLA_TMP/wrong"
    uniq -d "$OTTLA_TMP/read" | sed 's/^/twice: /' >>"$OTTLA_TMP/wrong"
    cat "$OTTLA_TMP/wrong"
    [ ! -s "$OTTLA_TMP/wrong" ]
}
