# The Dockerfile, without docker: each stage's directory is made of what its COPY lines take and of nothing else. The first one is looked at
# by cargo, which reads every manifest, and for files that the sources include; the second one's command runs.
# Sourced by run.sh.
IMAGE=$OTTLA_TMP/image

lines() { # STAGE INSTRUCTION : what stands behind it, continued lines joined
    sed -e ':a' -e '/\\$/N; s/\\\n//; ta' "$OTTLA_ROOT/Dockerfile" |
        awk -v stage="$1" -v name="$2" '/^FROM / { at++ } at == stage && $1 == name { sub(/^[A-Z]+ +/, ""); print }'
}
words() { lines "$@" | tr -d '[],"'; } # of a list in JSON

copy() { # STAGE : what its COPY lines name comes below $IMAGE/STAGE
    local workdir line source to ignored
    workdir=$(lines "$1" WORKDIR)
    while read -ra line; do
        to=${line[-1]}
        [[ $to == /* ]] || to=$workdir/$to
        to=$IMAGE/$1$to
        for source in "${line[@]:0:${#line[@]}-1}"; do
            [[ $source != --from=build ]] || continue
            while read -r ignored; do
                [[ /$source/ != "$ignored"/* ]] || { echo "$source is in .dockerignore"; return 1; }
            done <"$OTTLA_ROOT/.dockerignore"
            # the one thing that is taken from the first stage
            [[ $source != "$(lines 1 WORKDIR)/target/release/ottla" ]] || source=$OTTLA_BIN
            [[ $source == /* ]] || source=$OTTLA_ROOT/$source
            if [ -d "$source" ]; then
                mkdir -p "$to" && cp -r "$source/." "$to"
            else
                mkdir -p "$(dirname "${to}x")" && cp "$source" "$to"
            fi || return 1
        done
    done < <(lines "$1" COPY)
}

sources() {
    local known file path
    copy 1 || return 1
    cd "$IMAGE/1$(lines 1 WORKDIR)" || return 1
    has "$(lines 1 RUN)" '^cargo build --release --locked --bin ottla$' || return 1
    known=$(cargo metadata --locked --filter-platform "$(rustc -vV | sed -n "s/^host: //p")" --format-version 1) || return 1
    has "$known" '"kind":\["bin"\],"crate_types":\["bin"\],"name":"ottla"' || return 1
    while IFS=: read -r file path; do
        path=$(dirname "$file")/$(cut -d'"' -f2 <<<"$path")
        [ -e "$path" ] || { echo "$file includes $path"; return 1; }
    done < <(grep -rEo 'include(_str|_bytes)?!\("[^"]+"' --include='*.rs' .)
    has "$(lines 1 FROM)" "^rust:$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)-"
}
check "Dockerfile: the sources are all there" sources
cd "$OTTLA_TMP" || exit 1

image_starts() {
    local program file port name
    copy 2 || return 1
    program=$IMAGE/2/usr/local/bin/$(words 2 ENTRYPOINT)
    file=$IMAGE/2$(words 2 CMD)
    # what is moved aside below is what the image promises
    has "$(cat "$file")" "^log.dirs=$(lines 2 VOLUME)\$" || return 1
    for port in $(lines 2 EXPOSE); do has "$(cat "$file")" "^(listeners|ottla.http.listener)=.*:$port(,|\$)" || return 1; done
    # the smallest of Debian's images has these
    name=$(ldd "$program" | grep -vE 'linux-vdso|ld-linux|lib(c|m|gcc_s)\.so')
    [ -z "$name" ] || { echo "needs $name"; return 1; }
    BROKER_PORT=$(free_port)
    BOOTSTRAP=127.0.0.1:$BROKER_PORT
    controller=$(free_port)
    OTTLA_BIN=$program start "$file" \
        --override "listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller" \
        --override "advertised.listeners=PLAINTEXT://127.0.0.1:$BROKER_PORT,CONTROLLER://127.0.0.1:$controller" \
        --override "controller.quorum.bootstrap.servers=127.0.0.1:$controller" \
        --override "log.dirs=$IMAGE/data" --override "ottla.http.listener=127.0.0.1:$(free_port)" &&
        echo x | K -P -t image -p 0 && [ "$(K -C -t image -p 0 -o 0 -e -q)" = x ]
}
check "Dockerfile: its command runs a broker" image_starts
stop_broker
