# crate_source NAME VERSION : unpacks a crate with its tests into the cache and prints the directory. Needs env.sh.
crate_source() {
    local dir=$OTTLA_CACHE/crate-$1-$2
    once "crate-$1-$2" _crate_source "$1" "$2" "$dir" >&2 || return 1
    echo "$dir"
}

_crate_source() {
    local scratch manifest
    scratch=$(mktemp -d) &&
        cargo init -q --vcs none --name fetch "$scratch" &&
        printf '\n[dependencies.%s]\nversion = "=%s"\ndefault-features = false\n' "$1" "$2" >>"$scratch/Cargo.toml" &&
        sed -i '/^\[dependencies\]$/d' "$scratch/Cargo.toml" &&
        manifest=$(cargo metadata --manifest-path "$scratch/Cargo.toml" --format-version 1 |
            python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == sys.argv[1]))' "$1") &&
        rm -rf "$3" &&
        cp -r "$(dirname "$manifest")" "$3"
    local status=$?
    rm -rf "$scratch"
    return $status
}

# crate_suite NOT_YET_FILE TEST_THREADS CARGO_TEST_ARGS... : in the current directory, builds a crate's tests into the
# cache, runs them against $BOOTSTRAP and counts each. Lines "NAME REASON" of the not-yet file are left out on Ottla,
# unless NOT_YET=1: then they run too, and those that pass are named. Names marked "never" are left out always.
crate_suite() {
    local list=$1 threads=$2 log=$OTTLA_TMP/cargo-test.log name reason filter=()
    shift 2
    export CARGO_TARGET_DIR=$PWD/target
    # not the pin of this checkout's toolchain file only: the crate must not bring its own
    rm -f rust-toolchain.toml
    nice cargo test -q --no-run "$@" >"$log" 2>&1 || { fail "build" "$(cat "$log")"; return; }
    while read -r name reason; do
        if [[ $reason == never* ]] || { [ "$BROKER" = ottla ] && [ -z "$NOT_YET" ]; }; then
            filter+=(--skip "$name")
            skip "$name" "$reason"
        fi
    done < <(grep -v '^#' "$list")
    timeout -k 5 "${CRATE_SECONDS:-900}" cargo test --no-fail-fast "$@" -- --exact --test-threads="$threads" "${filter[@]}" \
        >"$log" 2>&1 </dev/null
    local status=$? failures again
    # what librdkafka itself prints may stand between a test's name and its result: only the lists at the end are sure
    failures=$(_failed_tests "$log")
    # several of these tests expect things to happen within a second, or one thread of librdkafka before another: each that
    # failed is tried again, alone
    for again in 1 2 3; do
        [ -n "$failures" ] || break
        # shellcheck disable=SC2086
        timeout -k 5 300 cargo test --no-fail-fast "$@" -- --exact --test-threads=1 $failures >"$log.again" 2>&1 </dev/null
        status=$?
        printf 'again, %d: %s\n' "$again" "${failures//$'\n'/ }"
        failures=$(_failed_tests "$log.again")
        [ -z "$failures" ] || status=0
    done
    while read -r name; do
        reason=$(grep "^$name " "$list")
        if grep -q "^test $name \.\.\. ignored" "$log"; then
            skip "$name" ignored
        elif ! grep -qx "$name" <<<"$failures"; then
            pass "$name"
            [ "$BROKER" = kafka ] || [ -z "$reason" ] || echo "PASSES NOW: $name, take it out of $list"
        elif [ -n "$reason" ] && [ "$BROKER" = ottla ]; then
            skip "$name" "not yet: ${reason#* }"
        else
            fail "$name" "$(sed -n "/^---- $name std/,/^---- /p" "$log" | head -15)"
        fi
    done < <(sed -nE 's/^test ([^ ]+)( - should panic)? \.\.\. .*$/\1/p' "$log" | sort -u)
    [ $status = 0 ] || [ "$FAILED" -gt 0 ] || [ -n "$NOT_YET" ] || fail "cargo test ended with $status" "$(cat "$log")"
}

_failed_tests() {
    sed -n '/^failures:$/,/^test result/p' "$1" | sed -n 's/^    \([A-Za-z_0-9:]*\)$/\1/p' | sort -u
}
