"""The frame of the client programs: each case prints `ok NAME`, `FAIL NAME` or `skip NAME: why` (read by env.sh).

The log of a failing case goes to stderr. A program ends with status 1 when a case failed.
"""
import faulthandler
import os
import sys
import threading
import time
import traceback
import uuid

BOOTSTRAP = os.environ["BOOTSTRAP"]
# How many brokers there are, and how many replicas a partition gets: 1 or 3.
REPLICATION = int(os.environ["REPLICATION"])
_cases = []


class Skip(Exception):
    pass


def case(name):
    def register(function):
        _cases.append((name, function))
        return function
    return register


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def eventually(condition, seconds=10.0, what="condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what}")


def equal(got, want, what=""):
    assert got == want, f"{what} got {got!r}, want {want!r}"


def _run(function, box):
    try:
        function()
        box.append(None)
    except BaseException as error:  # the verdict of the case, whatever it is
        box.append(error)


def main(seconds_per_case=60):
    failed = 0
    only = sys.argv[1:]
    for name, function in _cases:
        if only and name not in only:
            continue
        box, start = [], time.monotonic()
        thread = threading.Thread(target=_run, args=(function, box), daemon=True)
        thread.start()
        thread.join(seconds_per_case)
        if not box:
            faulthandler.dump_traceback()
        error = box[0] if box else TimeoutError(f"not done within {seconds_per_case} s")
        if error is None:
            print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        elif isinstance(error, Skip):
            print(f"skip {name}: {error}", flush=True)
        else:
            failed += 1
            print(f"FAIL {name}", flush=True)
            traceback.print_exception(type(error), error, error.__traceback__)
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # clients may have threads that linger
