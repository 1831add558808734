#!/usr/bin/env bash
# Python clients: confluent-kafka and kafka-python from PyPI, and the older kafka-python of Debian 12 (2.0.2).
cd "$(dirname "$0")" || exit 1
source ../../scripts/lib/env.sh
source ../../scripts/lib/python.sh
need_venv || { fail "venv"; finish; }
apt_need python3-kafka
start_broker num.partitions=3 offsets.topic.num.partitions=10 group.min.session.timeout.ms=1000 \
    group.initial.rebalance.delay.ms=500 log.cleaner.backoff.ms=200 || exit 1
export PYTHONDONTWRITEBYTECODE=1
[ -n "$ONLY" ] && [[ "confluent-kafka" != *$ONLY* ]] || program "confluent-kafka" 300 "$VENV/bin/python" confluent.py
[ -n "$ONLY" ] && [[ "kafka-python (PyPI)" != *$ONLY* ]] || program "kafka-python (PyPI)" 300 "$VENV/bin/python" kafkapython.py
[ -n "$ONLY" ] && [[ "kafka-python (Debian)" != *$ONLY* ]] || program "kafka-python (Debian)" 300 /usr/bin/python3 kafkapython.py
finish
