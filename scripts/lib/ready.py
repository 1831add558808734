"""Waits until a broker answers Metadata with at least one broker: ready.py HOST PORT PID SECONDS.

Exits 1 when the process is gone or the time is over. Uses only the standard library.
"""
import os
import socket
import struct
import sys
import time


def ready(host, port):
    with socket.create_connection((host, port), 2) as sock:
        sock.settimeout(2)
        # Metadata v1, correlation id 7, client id "ready", no topics
        body = struct.pack(">hhih5si", 3, 1, 7, 5, b"ready", 0)
        sock.sendall(struct.pack(">i", len(body)) + body)
        answer = sock.makefile("rb").read(12)
        if len(answer) != 12:
            return False
        _, correlation_id, brokers = struct.unpack(">iii", answer)
        return correlation_id == 7 and brokers > 0


def main():
    host, port, pid, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except OSError:
            return 1
        try:
            if ready(host, port):
                return 0
        except OSError:
            pass
        time.sleep(0.05)
    return 1


sys.exit(main())
