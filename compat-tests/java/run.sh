#!/usr/bin/env bash
# Apache Kafka's own command line tools and Java clients, stock from Maven Central, against one fresh broker.
source "$(dirname "$0")/../../scripts/lib/env.sh"
source "$OTTLA_ROOT/scripts/lib/tools.sh"
fetch_kafka || exit 1
start_broker num.partitions=2 group.initial.rebalance.delay.ms=100 offsets.topic.num.partitions=5 \
    group.min.session.timeout.ms=1000 auto.create.topics.enable=false || exit 1

# the id of any node, the replicas of any partition
ID=1 IDS=1 TAB=$'\t'
[ "$NODES" = 1 ] || ID='[123]' IDS='[123],[123],[123]'
B="--bootstrap-server $BOOTSTRAP"
topics() { ktool topics $B "$@"; }
groups() { ktool consumer-groups $B "$@"; }
configs() { ktool configs $B "$@"; }
offsets() { ktool get-offsets $B "$@"; }
produce_lines() { ktool console-producer $B "$@"; }
# consume TOPIC ARGS... : from the beginning, sorted, as many as --max-messages says
consume() { ktool console-consumer $B --topic "$1" --from-beginning --timeout-ms 30000 "${@:2}" 2>/dev/null | sort; }
same() { [ "$1" = "$2" ] || { diff <(echo "$2") <(echo "$1") | head -20; return 1; }; }

echo "-- topics"
says "topics: create" 'Created topic alpha\.' topics --create --topic alpha --partitions 3 --replication-factor "$REPLICATION" \
    --config retention.ms=123456 --config cleanup.policy=delete
says "topics: create with the defaults of the broker" 'Created topic beta' topics --create --topic beta
says "topics: create if not exists" '' topics --create --topic alpha --if-not-exists
refuses "topics: create twice" "Topic 'alpha' already exists" topics --create --topic alpha
refuses "topics: create with a bad name" 'invalid|illegal' topics --create --topic 'a/b'
refuses "topics: replication factor above the brokers" 'replication factor' topics --create --topic rf4 \
    --replication-factor 4
refuses "topics: unknown config" 'Unknown topic config name: nonsense' topics --create --topic cfg --config nonsense=1
shows "topics: list" $'^alpha$\n^beta$' topics --list
shows "topics: describe" $'Topic: alpha\tTopicId: [-_A-Za-z0-9]{22}\tPartitionCount: 3\tReplicationFactor: '"$REPLICATION"$'\tConfigs: .*retention.ms=123456\nPartition: 2\tLeader: '"$ID${TAB}Replicas: $IDS${TAB}Isr: $IDS$TAB" \
    topics --describe --topic alpha
shows "topics: default partition count" 'PartitionCount: 2' topics --describe --topic beta
says "topics: describe under-replicated shows none" '' topics --describe --under-replicated-partitions
shows "topics: describe with overrides only" 'Topic: alpha' topics --describe --topics-with-overrides
says "topics: alter adds partitions" '' topics --alter --topic beta --partitions 4
shows "topics: more partitions show" 'PartitionCount: 4' topics --describe --topic beta
refuses "topics: partitions never shrink" 'has 4 partitions|would not be an increase' topics --alter --topic beta \
    --partitions 2
says "topics: delete" '' topics --delete --topic beta
_gone() { local out; out=$(topics --list) && ! grep -x "$1" <<<"$out"; }
check "topics: deleted topic is gone" eventually 20 _gone beta
refuses "topics: describe an unknown topic" "does not exist" topics --describe --topic beta

echo "-- console producer and consumer"
round_trip() {
    local topic=rt-$1 lines
    topics --create --topic "$topic" --partitions 3 >/dev/null 2>&1
    lines=$(seq -f "$1 line %g" 1 500 | sort)
    # the line is its own key, so that every partition gets some
    sed 's/.*/&\t&/' <<<"$lines" | produce_lines --topic "$topic" --compression-codec "$1" \
        --property parse.key=true || return 1
    same "$(consume "$topic" --max-messages 500)" "$lines"
}
for codec in none gzip snappy lz4 zstd; do check "console: 500 lines, $codec" round_trip "$codec"; done
keyed() {
    local out
    printf 'h1:v1,h2:v2\tk1\tvalue one\nh3:v3\tk2\tvalue two\n' | produce_lines --topic alpha \
        --property parse.key=true --property parse.headers=true || return 1
    out=$(consume alpha --max-messages 2 --property print.key=true --property print.headers=true \
        --property print.timestamp=true --property print.offset=true --property print.partition=true)
    matches "$out" $'CreateTime:[0-9]{13}\tPartition:[0-2]\tOffset:0\th1:v1,h2:v2\tk1\tvalue one\nOffset:[01]\th3:v3\tk2\tvalue two'
}
check "console: keys, headers, timestamps" keyed
acks() {
    topics --create --topic "acks$1" --partitions 1 >/dev/null
    echo "acks $1" | produce_lines --topic "acks$1" --producer-property "acks=$1" \
        --producer-property enable.idempotence=false || return 1
    same "$(consume "acks$1" --max-messages 1)" "acks $1"
}
for a in 0 1 all; do check "console: acks=$a" acks "$a"; done
one_partition() {
    same "$(ktool console-consumer $B --topic rt-none --partition 1 --offset 10 --max-messages 5 --timeout-ms 30000 \
        2>/dev/null | wc -l)" 5
}
check "console: one partition from an offset" one_partition
include() { same "$(ktool console-consumer $B --include 'rt-(gzip|lz4)' --from-beginning --timeout-ms 30000 \
    --max-messages 1000 2>/dev/null | wc -l)" 1000; }
check "console: topics by pattern" include

echo "-- offsets and records"
shows "get-offsets: latest" $'^alpha:0:[0-9]+$\n^alpha:2:[0-9]+$' offsets --topic alpha
earliest() { same "$(offsets --topic rt-none --time earliest | sort)" $'rt-none:0:0\nrt-none:1:0\nrt-none:2:0'; }
check "get-offsets: earliest" earliest
sum() { offsets --topic "$@" | awk -F: '{ n += $3 } END { print n + 0 }'; }
total() { same "$(sum rt-none)" 500; }
check "get-offsets: latest adds up" total
says "get-offsets: max timestamp" '^rt-none:0:[0-9]+' offsets --topic rt-none --time max-timestamp
says "get-offsets: by time, all later" '^rt-none:0:0' offsets --topic rt-none --time 1000000000000
says "get-offsets: earliest-local" '^rt-none:0:0' offsets --topic rt-none --time earliest-local
delete_records() {
    cat >"$OTTLA_TMP/delete.json" <<<'{"partitions":[{"topic":"rt-none","partition":0,"offset":7}],"version":1}'
    _says 'partition: rt-none-0	low_watermark: 7' ktool delete-records $B \
        --offset-json-file "$OTTLA_TMP/delete.json" || return 1
    matches "$(offsets --topic rt-none --time earliest)" 'rt-none:0:7'
}
check "delete-records: moves the log start offset" delete_records
delete_beyond() {
    cat >"$OTTLA_TMP/beyond.json" <<<'{"partitions":[{"topic":"rt-none","partition":0,"offset":99999}],"version":1}'
    _refuses 'OffsetOutOfRange|out of range' ktool delete-records $B --offset-json-file "$OTTLA_TMP/beyond.json"
}
check "delete-records: beyond the end" delete_beyond
shows "log-dirs: describe" $'"broker":1\n"partition":"alpha-0","size":[0-9]+,"offsetLag":0' ktool log-dirs $B --describe \
    --topic-list alpha

echo "-- consumer groups"
# consumer group eaten up by a short-lived member; then everything the tool can do to an empty group
eat() { consume rt-gzip --group eaters --max-messages 500 | wc -l; }
eaten() { same "$(eat)" 500; }
check "groups: a member reads everything and commits" eaten
shows "groups: list" '^eaters$' groups --list
shows "groups: list with state" 'eaters +(Classic +)?Empty' groups --list --state
shows "groups: list filtered by state" 'eaters' groups --list --state Empty
says "groups: describe offsets" 'eaters +rt-gzip +0 +[0-9]+ +[0-9]+ +0 ' groups --describe --group eaters
says "groups: describe members of an empty group" 'no active members' groups --describe --group eaters --members
says "groups: describe state" 'eaters .*Empty +0' groups --describe --group eaters --state
says "groups: describe all groups" 'eaters +rt-gzip' groups --describe --all-groups
refuses "groups: describe an unknown group" 'does not exist|not found' groups --describe --group nobody
says "groups: reset to earliest, dry run" 'eaters +rt-gzip +0 +0' groups --reset-offsets --group eaters --topic rt-gzip \
    --to-earliest --dry-run
says "groups: reset to earliest" 'eaters +rt-gzip +0 +0' groups --reset-offsets --group eaters --topic rt-gzip --to-earliest \
    --execute
shows "groups: the reset shows as lag" 'eaters +rt-gzip +0 +0 +[0-9]+ +[1-9]' groups --describe --group eaters
says "groups: reset to an offset" 'eaters +rt-gzip +1 +3' groups --reset-offsets --group eaters --topic rt-gzip:1 --to-offset 3 \
    --execute
says "groups: reset shift by" 'eaters +rt-gzip +1 +5' groups --reset-offsets --group eaters --topic rt-gzip:1 --shift-by 2 --execute
says "groups: reset to datetime" 'eaters +rt-gzip +0 +0' groups --reset-offsets --group eaters --topic rt-gzip \
    --to-datetime 2020-01-01T00:00:00.000 --execute
says "groups: reset to latest" 'eaters +rt-gzip +0 +[1-9]' groups --reset-offsets --group eaters --topic rt-gzip --to-latest --execute
says "groups: reset of a new group" 'fresh +rt-lz4 +0 +0' groups --reset-offsets --group fresh --topic rt-lz4 --to-earliest \
    --execute
says "groups: export" '"?rt-gzip"?,0,' groups --reset-offsets --group eaters --topic rt-gzip --to-current --dry-run --export
says "groups: delete offsets" 'rt-gzip +0 +Successful' groups --delete-offsets --group eaters --topic rt-gzip
says "groups: delete" 'Deletion of requested consumer groups .*eaters.* was successful' groups --delete --group eaters
refuses "groups: delete an unknown group" 'could not be deleted|GroupIdNotFound|does not exist' groups --delete --group eaters
says "groups: kafka-groups lists types" 'fresh +Classic' ktool groups $B --list

# a live member: describe shows it, offsets cannot be reset, the group cannot be deleted
"$KAFKA_HOME/bin/kafka-console-consumer.sh" $B --topic rt-lz4 --group live --consumer-property client.id=live-client \
    >"$OTTLA_TMP/live.out" 2>&1 &
LIVE=$!
kill_at_exit "$LIVE"
shows "groups: describe a live member and its assignment" 'live .*live-client .* 3 .*rt-lz4' groups --describe --group live --members --verbose
says "groups: describe live state" 'live .*range .*Stable +1' groups --describe --group live --state
refuses "groups: a live group keeps its offsets" 'inactive|current state is Stable' groups --reset-offsets \
    --group live --topic rt-lz4 --to-earliest --execute
refuses "groups: a live group is not deleted" 'NonEmpty|not empty' groups --delete --group live
kill "$LIVE"
wait "$LIVE" 2>/dev/null
shows "groups: the member left" 'live .*Empty +0' groups --describe --group live --state

echo "-- configs"
says "configs: alter a topic" 'Completed updating config for topic alpha' configs --alter --entity-type topics \
    --entity-name alpha --add-config 'max.message.bytes=200000,cleanup.policy=[compact,delete]'
shows "configs: describe a topic" $'max.message.bytes=200000 .*DYNAMIC_TOPIC_CONFIG:max.message.bytes=200000, DEFAULT_CONFIG:message.max.bytes=1048588\ncleanup.policy=compact,delete\nretention.ms=123456' \
    configs --describe --entity-type topics --entity-name alpha
shows "configs: describe all of a topic" $'segment.bytes=1073741824\nmin.insync.replicas=1\ncompression.type=producer' configs --describe --all \
    --entity-type topics --entity-name alpha
says "configs: delete a topic config" 'Completed' configs --alter --entity-type topics --entity-name alpha \
    --delete-config max.message.bytes
_not_there() { local out; out=$(configs --describe --entity-type topics --entity-name alpha) && ! grep 'max.message.bytes=200000' <<<"$out"; }
check "configs: the deleted one is gone" eventually 20 _not_there
refuses "configs: unknown key" 'Unknown topic config name' configs --alter --entity-type topics --entity-name alpha \
    --add-config nonsense=1
refuses "configs: bad value" 'Invalid value' configs --alter --entity-type topics --entity-name alpha \
    --add-config retention.ms=abc
says "configs: describe a broker" 'All configs|Dynamic configs|configs for broker 1' configs --describe --entity-type brokers --entity-name 1
says "configs: describe all of a broker" $'node.id=1 \nnum.partitions=2 .*STATIC_BROKER_CONFIG:num.partitions=2\nlog.retention.hours=168' configs --describe --all \
    --entity-type brokers --entity-name 1
says "configs: alter a broker" 'Completed updating config for broker 1' configs --alter --entity-type brokers \
    --entity-name 1 --add-config log.cleaner.threads=2
shows "configs: the broker config shows" 'log.cleaner.threads=2 .*DYNAMIC_BROKER_CONFIG:log.cleaner.threads=2' configs --describe \
    --entity-type brokers --entity-name 1
says "configs: cluster-wide broker default" 'Completed updating default config for brokers' configs --alter \
    --entity-type brokers --entity-default --add-config message.max.bytes=2000000
shows "configs: the cluster-wide default shows" 'message.max.bytes=2000000 .*DYNAMIC_DEFAULT_BROKER_CONFIG:message.max.bytes=2000000' configs \
    --describe --entity-type brokers --entity-default
shows "configs: a topic inherits it" 'max.message.bytes=2000000 ' configs --describe --all --entity-type topics \
    --entity-name alpha
refuses "configs: a read-only broker config" 'Cannot update these configs dynamically|not dynamically' configs --alter --entity-type brokers \
    --entity-name 1 --add-config log.dirs=/x
says "configs: broker loggers" 'root=|kafka' configs --describe --entity-type broker-loggers --entity-name 1

echo "-- cluster"
says "broker-api-versions" $'127.0.0.1:[0-9]+ \\(id: 1 rack: null isFenced: false\\) -> \\(\nProduce\\(0\\): .* \\[usable: 13\\]\nFetch\\(1\\): 4 to 18 \\[usable: 18\\]\nApiVersions\\(18\\): 0 to 4 \\[usable: 4\\]' \
    ktool broker-api-versions $B
says "cluster: cluster-id" '^Cluster ID: [-_A-Za-z0-9]{22}$' ktool cluster cluster-id $B
says "leader-election: nothing to do" 'Valid replica already elected for partitions' ktool leader-election $B \
    --election-type preferred --topic alpha --partition 0
refuses "cluster: unregister of a stranger" 'BrokerIdNotRegisteredException' ktool cluster \
    unregister --id 99 $B
says "cluster: list-endpoints" '^1 +127.0.0.1 +[0-9]+ ' ktool cluster list-endpoints $B
says "metadata-quorum: describe status" $'^ClusterId: +[-_A-Za-z0-9]{22}\n^LeaderId: +'"$ID"$'$\n^MaxFollowerLag: +0$' ktool metadata-quorum $B \
    describe --status
says "metadata-quorum: describe replication" "^${ID}[[:space:]].*Leader" ktool metadata-quorum $B describe --replication
says "features: describe" 'Feature: metadata.version .*FinalizedVersionLevel: 4.3-IV0' ktool features $B describe
refuses "features: downgrade refused" 'should be set to SAFE_DOWNGRADE' ktool features $B upgrade --feature group.version=0

echo "-- load tools"
topics --create --topic perf --partitions 2 >/dev/null
says "producer-perf-test" '20000 records sent.*99.9th' ktool producer-perf-test --topic perf --num-records 20000 \
    --record-size 100 --throughput -1 --bootstrap-server "$BOOTSTRAP" --command-property acks=all
says "consumer-perf-test" '20000' ktool consumer-perf-test $B --topic perf --num-records 20000 --timeout 20000
e2e() { _says 'Percentiles: 50th = ' ktool e2e-latency $B --topic e2e --num-records 500 \
    --producer-acks all --record-size 100; }
topics --create --topic e2e --partitions 1 >/dev/null
check "e2e-latency" e2e

# Two verifiable consumers in one group while a verifiable producer writes; the second joins midway and the first
# leaves before the end. Each step waits for what the step before must bring, not for a time.
member() { # NAME STRATEGY : starts a verifiable consumer that writes to $OTTLA_TMP/NAME.json, sets MEMBER
    "$KAFKA_HOME/bin/kafka-verifiable-consumer.sh" $B --topic verify --group-id verifiers --session-timeout 20000 \
        --reset-policy earliest --assignment-strategy "$2" --verbose >"$OTTLA_TMP/$1.json" 2>/dev/null &
    MEMBER=$!
    kill_at_exit "$MEMBER"
}
records_of() { grep -c '"name":"record_data"' "$OTTLA_TMP/$1.json"; }
has_read() { [ "$(records_of "$1")" -ge "$2" ]; }
reads() { eventually 60 has_read "$1" $(($(records_of "$1") + $2)); } # NAME N : that member reads N records more than now
all_read() {
    [ "$(cat "$OTTLA_TMP"/[ab].json | grep -o '"partition":[0-9]*,"offset":[0-9]*\|"offset":[0-9]*,"partition":[0-9]*' |
        sort -u | wc -l)" -ge "$(grep -c producer_send_success "$OTTLA_TMP/p.json")" ]
}
rebalance() {
    local a b p
    topics --create --topic verify --partitions 6 >/dev/null
    rm -f "$OTTLA_TMP"/[abp].json
    member a "$1"
    a=$MEMBER
    "$KAFKA_HOME/bin/kafka-verifiable-producer.sh" $B --topic verify --throughput 1000 --acks -1 \
        >"$OTTLA_TMP/p.json" 2>/dev/null &
    p=$!
    kill_at_exit "$p"
    reads a 1000 || return 1
    member b "$1"
    b=$MEMBER
    reads b 1000 && reads a 500 || return 1
    kill "$a"
    wait "$a"
    reads b 2000 || return 1
    kill "$p"
    wait "$p"
    eventually 60 all_read || return 1
    kill "$b"
    wait "$b"
    python3 "$OTTLA_ROOT/compat-tests/java/verify.py" "$OTTLA_TMP"/{p,a,b}.json
}
check "verifiable: two consumers rebalance, nothing lost or twice" rebalance \
    org.apache.kafka.clients.consumer.RangeAssignor
topics --delete --topic verify >/dev/null
check "verifiable: the same, cooperative" rebalance org.apache.kafka.clients.consumer.CooperativeStickyAssignor

echo "-- restart"
before=$(offsets --topic rt-zstd | sort)
stop_broker
check "restart: the broker starts again" restart_broker
survives() { same "$(offsets --topic rt-zstd | sort)" "$before"; }
check "restart: offsets stand" eventually 20 survives
shows "restart: groups stand" '^fresh$' groups --list
shows "restart: topic configs stand" 'retention.ms=123456' configs --describe --entity-type topics --entity-name alpha
records_stand() { same "$(consume rt-zstd --max-messages 500 | wc -l)" 500; }
check "restart: records stand" records_stand
says "dump-log: what the broker wrote can be opened" 'baseOffset: 0 lastOffset: .*isvalid: true' ktool dump-log --files \
    "$BROKER_DIR/data/rt-zstd-0/00000000000000000000.log" --print-data-log --deep-iteration
says "dump-log: metadata log" 'REGISTER_BROKER_RECORD|TOPIC_RECORD' ktool dump-log --cluster-metadata-decoder --files \
    "$BROKER_DIR/data/__cluster_metadata-0/00000000000000000000.log"
finish
