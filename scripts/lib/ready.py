"""Waits until a broker answers Metadata with at least one broker: ready.py HOST PORT PID SECONDS.

Exits 1 when the process is gone or the time is over. Uses only the standard library.
"""
import os
import sys
import time

import wire


def main():
    host, port, pid, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except OSError:
            return 1
        try:
            brokers, _ = wire.metadata(f"{host}:{port}")
            if brokers:
                return 0
        except OSError:
            pass
        time.sleep(0.05)
    return 1


sys.exit(main())
