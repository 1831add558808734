# Python with the clients of compat-tests/python/requirements.txt; source after env.sh.

# need_venv : sets VENV, a virtual environment in the cache.
need_venv() {
    local requirements=$OTTLA_ROOT/compat-tests/python/requirements.txt
    VENV=$OTTLA_CACHE/python-$(sha256sum "$requirements" | cut -c1-12)
    once "$(basename "$VENV")" _make_venv "$requirements"
}

_make_venv() {
    python3 -m venv "$VENV" 2>/dev/null || { apt_need python3-venv && python3 -m venv "$VENV"; } || return 1
    "$VENV/bin/pip" install -q --disable-pip-version-check --only-binary :all: -r "$1"
}
