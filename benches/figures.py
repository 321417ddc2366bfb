"""Measures the figures of benches/README.md inside a test machine; started by benches/run.

figures.py MOZART_BIN_DIR BARE_PROGRAM PEAK_PROGRAM DISK_DIRECTORY [--quick]

Everything is taken from outside: whole processes, the kernel's accounts of them, and time stamps that the sessions
themselves write. Prints one Markdown table: each figure with its goal, the bare cost of what the machine needs for it
anyway, and the ratio of the two.
"""

import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

programs, bare, peak, disk = (Path(argument) for argument in sys.argv[1:5])
quick = "--quick" in sys.argv
SHEETS = 100 if quick else 1000
JOBS_OF_SHEETS = 2 if quick else 10
RUNS = 50 if quick else 1000
SETTLE_SECONDS = 5
IDLE_SECONDS = 10 if quick else 100
ctl = str(programs / "mozartctl")
rows = []


def figure(what, goal, value, cost, unit, note=""):
    """One row; `cost` None where the bare cost is nothing."""
    ratio = f"{value / cost:.1f}" if cost else "–"
    bare_cost = f"{cost:.1f} {unit}" if cost is not None else "0"
    rows.append((what, goal, f"{value:.1f} {unit}", bare_cost, ratio))
    print(f"{what}: {value:.1f} {unit} (goal {goal}; bare {bare_cost}) {note}", file=sys.stderr, flush=True)


def process(command, times=21):
    """Median wall time of a whole process in ms."""
    seconds = []
    devnull = os.open(os.devnull, os.O_RDWR)
    for _ in range(times):
        begin = time.perf_counter()
        child = os.posix_spawn(
            command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, devnull, fd) for fd in (0, 1, 2)]
        )
        _, status = os.waitpid(child, 0)
        seconds.append(time.perf_counter() - begin)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit(f"{' '.join(command)} failed")
    os.close(devnull)
    return statistics.median(seconds) * 1000


def peak_memory(command):
    """Peak memory of a whole process in MiB."""
    told = subprocess.run([str(peak), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return int(told.stderr.split()[-1]) / 1024


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout.strip()


def systemctl(*command, check=True):
    return run("systemctl", "--user", *command, check=check)


def show(unit, prop):
    return systemctl("show", "--value", f"--property={prop}", unit)


def job(name, sheets, command):
    path = disk / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nworkspace: ./workspace-{name}\n"
        f"backend: {{type: command, command: {command!r}, timeout_seconds: 60}}\n"
        f"sheet: {{size: 1, total_items: {sheets}}}\n"
        "prompt: {template: 'sheet {{ sheet_num }}'}\npause_between_sheets_seconds: 0\n"
    )
    return str(path)


def submit(path):
    for _ in range(600):
        done = subprocess.run([ctl, "run", "--detach", "--fresh", path], capture_output=True, text=True)
        if done.returncode == 0:
            return
        if "queue" not in (done.stdout + done.stderr).lower():
            raise SystemExit(f"{path} was refused: {done.stdout}{done.stderr}")
        time.sleep(0.2)  # the queue is full: that is a limit of Mozart's, not of interest here
    raise SystemExit(f"{path}: the queue stayed full")


def finished(name):
    run(ctl, "wait", name)


def stamping(path):
    """A session that only writes when it began and when it ended, in microseconds."""
    return ["/bin/bash", "-c", f"echo b ${{EPOCHREALTIME/./}} >>{path}; echo e ${{EPOCHREALTIME/./}} >>{path}"]


def gaps(path):
    """From each session's end to the next one's beginning, and from beginning to beginning, in ms."""
    stamps = [line.split() for line in Path(path).read_text().splitlines()]
    begins = [int(at) / 1000 for mark, at in stamps if mark == "b"]
    ends = [int(at) / 1000 for mark, at in stamps if mark == "e"]
    return [b - e for e, b in zip(ends, begins[1:])], [b - a for a, b in zip(begins, begins[1:])]


def main_pid():
    return int(show("mozart.service", "MainPID"))


def written(pid):
    """Bytes handed to write(2), and bytes of the 4 KiB pages that they dirtied: what really goes to the disk."""
    account = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(account["wchar"]), int(account["write_bytes"])


def switches(pid):
    """How often a thread of it went to sleep; to be pushed aside by another process is no wake-up of its own."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE).group(1))
    return total


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def size(*paths):
    return sum(
        file.stat().st_blocks * 512 for path in paths for file in Path(path).rglob("*") if file.is_file()
    )


def start_to_ready(unit):
    began, ready = (int(show(unit, f"{what}TimestampMonotonic")) for what in ("ExecMainStart", "ActiveEnter"))
    return (ready - began) / 1000


# 1. The command line by itself.
version, true = [ctl, "--version"], ["/bin/true"]
figure("`mozartctl --version`, whole process", "≤ 5 ms", process(version), process(true), "ms", "bare: /bin/true")
figure("its peak memory", "≤ 10 MiB", peak_memory(version), peak_memory(true), "MiB")

# 2. One job of many sheets, alone on the machine.
systemctl("start", "mozart.service")
pid = main_pid()
before = written(pid)
stamps = disk / "stamps"
submit(job("many", SHEETS, stamping(stamps)))
finished("many")
time.sleep(1.5)  # the last checkpoint of a run may come a second after its end
handed, dirtied = (after - earlier for after, earlier in zip(written(pid), before))
mozart_gaps, mozart_cycles = gaps(stamps)

scratch = disk / "bare"
scratch.mkdir()
count = min(SHEETS, 300)
run(str(bare), str(programs / "mozartd"), str(scratch), str(count), *stamping(disk / "bare-stamps"))
bare_gaps, bare_cycles = gaps(disk / "bare-stamps")

middle = statistics.median
figure(
    "one session's end → the next one's beginning", "≤ 20 ms", middle(mozart_gaps), middle(bare_gaps), "ms",
    "median; bare: the same command as transient units, one after the other",
)
figure(
    "a sheet beyond a bare unit with the same ExecStopPost", "≤ 5 ms",
    middle(mozart_cycles) - middle(bare_cycles), middle(bare_cycles), "ms", "bare: that unit's whole cycle",
)
tenth = max(10, SHEETS // 10)
figure(
    f"a sheet at the end of a job of {SHEETS}", "as at its start",
    middle(mozart_cycles[-tenth:]), middle(mozart_cycles[:tenth]), "ms", "bare: the same at its start",
)
on_disk = size(disk / "state", disk / "workspace-many") / 1e6
figure(
    f"written by mozartd for a job of {SHEETS} sheets", "≤ 20 MB", handed / 1e6, on_disk, "MB",
    "bare: what is on the disk afterwards, spool included",
)
figure("the same in whole pages of 4 KiB", "≤ 20 MB", dirtied / 1e6, on_disk, "MB")

# 3. A long history.
for number in range(1, JOBS_OF_SHEETS):
    submit(job(f"many-{number}", SHEETS, ["/bin/true"]))
for number in range(1, JOBS_OF_SHEETS):
    finished(f"many-{number}")
systemctl("stop", "mozart.service")
systemctl("start", "mozart.service")
ready = [start_to_ready("mozart.service")]
for _ in range(4):
    systemctl("restart", "mozart.service")
    ready.append(start_to_ready("mozart.service"))
notify = []
for number in range(5):
    run("systemd-run", "--user", "--quiet", f"--unit=notify-{number}", "--property=Type=notify",
        "--property=NotifyAccess=all", "/bin/sh", "-c", "systemd-notify --ready; exec sleep 60")
    notify.append(start_to_ready(f"notify-{number}.service"))
    systemctl("stop", f"notify-{number}.service")
figure(
    f"start → READY with {SHEETS * JOBS_OF_SHEETS} sheets in finished runs", "≤ 100 ms", middle(ready),
    middle(notify), "ms", "bare: a shell that says READY",
)

with ThreadPoolExecutor(4) as pool:
    paths = [job(f"small-{number}", 1, ["/bin/true"]) for number in range(RUNS - JOBS_OF_SHEETS)]
    list(pool.map(submit, paths))
for number in range(RUNS - JOBS_OF_SHEETS):
    finished(f"small-{number}")
status_ms = process([ctl, "status"])
call_ms = process(
    ["/usr/bin/busctl", "--user", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"]
)
figure(
    f"`mozartctl status`, whole process, {RUNS} runs in the ledger", "≤ 20 ms", status_ms, call_ms, "ms",
    "bare: busctl with one call",
)

# 4. Nothing to do.
systemctl("restart", "mozart.service")
pid = main_pid()
time.sleep(SETTLE_SECONDS)
before = switches(pid)
time.sleep(IDLE_SECONDS)
idle = switches(pid) - before
period = int(re.search(r"^WatchdogSec=(\d+)$", systemctl("cat", "mozart.service"), re.MULTILINE).group(1)) // 2
pings = (SETTLE_SECONDS + IDLE_SECONDS) // period - SETTLE_SECONDS // period
figure(f"wake-ups of idle mozartd in {IDLE_SECONDS} s", f"the watchdog's pings: {pings}", idle, None, "")
figure("its resident memory", "≤ 20 MB", resident(pid) * 1.048576, None, "MB")

print("| figure | goal | measured | bare cost | ratio |\n| --- | --- | --- | --- | --- |")
for row in rows:
    print("| " + " | ".join(cell.strip() for cell in row) + " |")
