#!/usr/bin/env bash
# librdkafka's own test programme against a fresh broker, one process a test, two at a time.
#   run.sh            the quick subset (flag q in tests.list)
#   run.sh --all      every test of tests.list that is not marked not-yet or kafka-fails
#   run.sh --not-yet  the not-yet ones too; those that pass are named, so that the list can shrink
#   run.sh 0011 0033  just these
# Logs stay in $LOGS (default: a directory that goes away). BROKER=kafka shows the score to expect.
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
LIST=$PWD/tests.list
DIR=$(./build.sh) || exit 1
fetch_kafka || exit 1
scratch
LOGS=${LOGS:-$OTTLA_TMP/logs}
mkdir -p "$LOGS"
RESULTS=$OTTLA_TMP/results
: >"$RESULTS"

has_flag() { [[ " $2 " == *" $1 "* ]]; }

# the chosen tests as "number scenario", the long ones first so that both lanes end together
choose() {
    local number seconds flags
    while read -r number seconds flags; do
        flags=${flags%%:*}
        if [[ $1 == [0-9]* ]]; then
            has_flag "$number" "$*" || continue
        elif has_flag kafka-fails "$flags"; then
            continue
        elif [ "$BROKER" = ottla ] && [ "$1" != --not-yet ]; then
            ! has_flag not-yet "$flags" || continue
        fi
        [ -n "$1" ] || has_flag q "$flags" || continue
        if has_flag noauto "$flags"; then echo "$seconds $number noautocreate"; else echo "$seconds $number default"; fi
    done < <(grep '^[0-9]' "$LIST") | sort -rn | cut -d' ' -f2-
}

# one NUMBER SCENARIO : runs one test; up to two tries, because some tests race with their own topic's creation.
one() {
    local number=$1 scenario=$2 try status=1 start took result log
    for try in 1 2; do
        log=$LOGS/$number.$try.log
        start=$(date +%s%N)
        { (
            cd "$DIR/tests" || exit 1
            [ "$scenario" = default ] || export TEST_SCENARIO=$scenario
            unset CI
            TESTS=$number TEST_KAFKA_VERSION=4.1.0 RDKAFKA_TEST_CONF=$OTTLA_TMP/test.conf KAFKA_PATH=$KAFKA_HOME \
                BROKERS=$BOOTSTRAP LD_LIBRARY_PATH=$DIR/src:$DIR/src-cpp timeout -k 5 "${TEST_SECONDS:-420}" \
                ./test-runner -p1 -L
        ) >"$log" 2>&1 </dev/null; } 2>/dev/null
        status=$?
        took=$((($(date +%s%N) - start) / 1000000))
        result=fail
        if [ $status = 0 ]; then
            result=pass
            # a test that took no time or that says so itself did not run
            if grep -qE 'Test .* SKIPPED|0/0 tests passed' "$log" ||
                { [ $took -lt 100 ] && [[ ! $number =~ ^(0003|0005|0065)$ ]]; }; then
                result=skip
            fi
        fi
        [ $result = fail ] || break
    done
    echo "$number $result $took $try" >>"$RESULTS"
    printf '%-5s %s %d.%03d s%s\n' "$result" "$number" $((took / 1000)) $((took % 1000)) \
        "$([ "$try" = 1 ] || [ "$result" = fail ] || echo ' (second try)')"
}
export -f one
export DIR LOGS RESULTS OTTLA_TMP

run_scenario() {
    local scenario=$1 chosen
    shift
    chosen=$(grep " $scenario\$" <<<"$CHOSEN")
    [ -n "$chosen" ] || return 0
    start_broker num.partitions=4 group.min.session.timeout.ms=1000 "super.users=User:ANONYMOUS" "$@" || exit 1
    cat >"$OTTLA_TMP/test.conf" <<-END
	bootstrap.servers=$BOOTSTRAP
	broker.address.family=v4
	test.timeout.multiplier=2
	test.topic.random=true
	END
    xargs -P 2 -L 1 bash -c 'one "$@"' one <<<"$chosen"
    broker_alive || { fail "the broker died" "$(cat "$BROKER_DIR/broker.log")"; }
    stop_broker
}

authorizer=authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
[ "$BROKER" = kafka ] || authorizer=num.io.threads=8
CHOSEN=$(choose "$@")
run_scenario default auto.create.topics.enable=true "$authorizer"
run_scenario noautocreate auto.create.topics.enable=false "$authorizer"

echo
while read -r number result took try; do
    flags=$(awk -v n="$number" '$1 == n { $1 = $2 = ""; print }' "$LIST")
    why=${flags#*: }
    flags=${flags%%:*}
    case $result in
    pass)
        PASSED=$((PASSED + 1))
        ! has_flag not-yet "$flags" || [ "$BROKER" = kafka ] || echo "PASSES NOW: $number, take not-yet off in tests.list"
        ;;
    skip) skip "$number" "did not run" ;;
    fail)
        if has_flag kafka-fails "$flags"; then
            skip "$number" "fails on Apache Kafka too: $why"
        elif has_flag not-yet "$flags" && [ "$BROKER" = ottla ]; then
            skip "$number" "not yet: $why"
        else
            fail "$number" "$(tail -n 12 "$LOGS/$number.2.log")"
        fi
        ;;
    esac
done < <(sort "$RESULTS")
if [ "$BROKER" = ottla ]; then
    SKIPPED=$((SKIPPED + $(comm -23 <(grep -E '^[0-9].*not-yet' "$LIST" | cut -d' ' -f1 | sort) <(cut -d' ' -f1 "$RESULTS" | sort) | wc -l)))
fi
finish
