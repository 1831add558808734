#!/usr/bin/env bash
# The integration tests of the rskafka crate (pure Rust client) against a fresh broker. NOT_YET=1 runs the not-yet ones too.
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
source ../../scripts/lib/crate.sh
LIST=$PWD/not-yet
apt_need build-essential cmake pkg-config libssl-dev zlib1g-dev libcurl4-openssl-dev
DIR=$(crate_source rskafka 0.6.0) || exit 1
cd "$DIR" || exit 1
# the lock file in the crate names a version of rsasl that was withdrawn
[ -e .updated ] || { rm -f rust-toolchain.toml; cargo update -q -p rsasl && touch .updated; }
start_broker auto.create.topics.enable=false || exit 1
TEST_INTEGRATION=1 TEST_BROKER_IMPL=kafka KAFKA_CONNECT=$BOOTSTRAP crate_suite "$LIST" 2 --features full --test '*'
finish
