#!/usr/bin/env bash
# The integration tests of the rdkafka crate (Rust binding of librdkafka) against a fresh broker.
# NOT_YET=1 runs the not-yet ones too.
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
source ../../scripts/lib/crate.sh
LIST=$PWD/not-yet
apt_need build-essential cmake pkg-config libssl-dev zlib1g-dev libcurl4-openssl-dev
DIR=$(crate_source rdkafka 0.39.0) || exit 1
cd "$DIR" || exit 1
# some tests expect the port 9092; ours is a free one
sed -i 's/\.set("bootstrap.servers", "localhost")/.set("bootstrap.servers", get_bootstrap_server().as_str())/' tests/test_high_producers.rs
sed -i 's/\.port(), 9092)/.port().to_string(), get_bootstrap_server().rsplit(":").next().unwrap())/' tests/test_metadata.rs
BROKER_NODE_ID=0 start_broker num.partitions=3 offsets.topic.num.partitions=5 || exit 1
# it counts one broker, which leads everything
if [ "$NODES" != 1 ]; then
    (cat "$LIST" && echo "test_metadata never: expects one broker") >"$OTTLA_TMP/not-yet"
    LIST=$OTTLA_TMP/not-yet
fi
KAFKA_HOST=$BOOTSTRAP crate_suite "$LIST" 1 --features cmake-build,ssl --test '*'
finish
