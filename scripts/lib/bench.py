"""What the measurements of scripts/bench share: the table, loadgen, CPU and memory of processes."""

import json
import os
import re
import statistics
import subprocess

from cluster import TARGET

LOADGEN = os.environ.get("LOADGEN") or os.path.join(TARGET, "release", "loadgen")
HZ = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / HZ


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


def loadgen(name, address, pids, *args):
    """Runs a load on a broker, or on the cluster that it is of; what it measured."""
    command = [LOADGEN, "--broker", address]
    if pids:
        command += ["--pid", ",".join(map(str, pids))]
    done = subprocess.run(command + [str(a) for a in args], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {' '.join(map(str, args))}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


class Table:
    def __init__(self):
        self.missed, self.data = [], []
        print("| load | figure | Ottla | Kafka | ratio | wanted | |\n|---|---|---|---|---|---|---|", flush=True)

    def add(self, row, label, ours, theirs, target=None, bigger=False, ratio=None, bound=None):
        ratio = ratio if ratio is not None else (ours / theirs if theirs else float("nan"))
        verdict = ""
        if target is not None:
            verdict = "ok" if (ratio >= target if bigger else ratio <= target) else "MISS"
        if bound is not None:
            verdict = "ok" if ours <= bound else "MISS"
        want = "" if target is None and bound is None else (f"<= {bound:g}" if bound is not None else ("%s %gx" % (">=" if bigger else "<=", target)))
        self.data.append(dict(row=row, metric=label, ottla=ours, kafka=theirs, ratio=ratio, wanted=want, verdict=verdict))
        line = f"| {row} | {label} | {ours:,.4g} | {theirs:,.4g} | {ratio:.3g}x | {want} | {verdict} |"
        print(line, flush=True)
        if verdict == "MISS":
            self.missed.append(line)


def load_row(table, two, name, args, metrics, pairs):
    got = ([], [])
    foreign = 0
    try:
        for pair in range(pairs):
            for i in (0, 1) if pair % 2 == 0 else (1, 0):
                line = two[i].load(*args)
                if line.get("errors"):
                    raise RuntimeError(f"{two[i].name}: {line['errors']} errors")
                got[i].append(line)
                foreign = max(foreign, line["foreign_cpu_s"] / line["seconds"] / os.cpu_count())
    except RuntimeError as e:
        print(f"| {name} | failed: {e} | | | | | |", flush=True)
        return
    for metric, label, target, bigger in metrics:
        ours, theirs = ([line[metric] for line in side] for side in got)
        ratio = statistics.median(o / t if t else float("nan") for o, t in zip(ours, theirs))
        table.add(name, label, statistics.median(ours), statistics.median(theirs), target, bigger, ratio)
    if foreign > 0.10:
        print(f"| {name} | foreign CPU {foreign:.0%}: noisy | | | | | |", flush=True)
