#!/usr/bin/env bash
# Node clients: kafkajs (old request versions) and @platformatic/kafka (new ones).
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
MODULES=$OTTLA_CACHE/node-$(sha256sum package-lock.json | cut -c1-12)
install_modules() {
    command -v npm >/dev/null || apt_need nodejs npm
    mkdir -p "$MODULES" && cp package.json package-lock.json "$MODULES" && npm ci --silent --ignore-scripts --prefix "$MODULES" >/dev/null
}
once "$(basename "$MODULES")" install_modules || { fail "npm ci"; finish; }
start_broker num.partitions=3 offsets.topic.num.partitions=10 group.min.session.timeout.ms=1000 \
    group.initial.rebalance.delay.ms=500 || exit 1
# Node looks for modules beside the program, so the programs go where the modules are
RUN=$OTTLA_TMP/node
mkdir -p "$RUN"
cp ./*.mjs package.json "$RUN"
ln -s "$MODULES/node_modules" "$RUN/node_modules"
cd "$RUN" || exit 1
[ -n "$ONLY" ] && [[ kafkajs != *$ONLY* ]] || program kafkajs 300 node kafkajs.mjs
[ -n "$ONLY" ] && [[ platformatic != *$ONLY* ]] || program @platformatic/kafka 300 node platformatic.mjs
finish
