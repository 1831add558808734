"""Waits until a broker answers Metadata with at least so many brokers, default one: ready.py HOST PORT PID SECONDS [BROKERS].

Exits 1 when the process is gone or the time is over. Uses only the standard library.
"""
import os
import sys
import time

import wire


def main():
    host, port, pid, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    wanted = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except OSError:
            return 1
        try:
            brokers, _ = wire.metadata(f"{host}:{port}")
            if len(brokers) >= wanted:
                return 0
        except OSError:
            pass
        time.sleep(0.05)
    return 1


sys.exit(main())
