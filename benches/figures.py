"""Measures the figures of benches/README.md inside a test machine; started by benches/run.

figures.py MOZART_BIN_DIR BARE_PROGRAM DIRECTORY_OF_PEAK_AND_SESSION DISK_DIRECTORY [--quick] [PART]...

Everything is taken from outside: whole processes, the kernel's accounts of them, time stamps that the sessions
themselves write, and those of the files that systemd makes for them. Prints one Markdown table: each figure with its
goal, the bare cost of what the machine needs for it anyway, and the ratio of the two. Each part begins with an empty ledger.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

programs, bare, own, disk = (Path(argument) for argument in sys.argv[1:5])
peak = own / "peak"
quick = "--quick" in sys.argv
asked = [argument for argument in sys.argv[5:] if not argument.startswith("-")]
few = 10 if quick else 1
SETTLE_SECONDS = 5
IDLE_SECONDS = 100 // few
TRUE = ["/bin/true"]
SERVICE = "mozart.service"
ctl = str(programs / "mozartctl")
state = disk / "state"
settings = Path.home() / ".config/mozart/mozartd.yaml"
rows = []
parts = {}
middle = statistics.median


def part(function):
    parts[function.__name__] = function
    return function


def figure(what, goal, value, cost, unit, note="", show="{:.1f}"):
    """One row; `cost` None where the bare cost is nothing."""
    ratio = f"{value / cost:.2f}" if cost else "–"
    shown, bare_cost = (f"{show.format(number)} {unit}" for number in (value, cost or 0))
    bare_cost = bare_cost if cost is not None else "0"
    rows.append((what, goal, shown, bare_cost, ratio))
    print(f"{what}: {shown} (goal {goal}; bare {bare_cost}) {note}", file=sys.stderr, flush=True)


def process(command, times=21):
    """Median wall time of a whole process in ms."""
    return middle(timed(command) for _ in range(times))


def timed(command):
    """Wall time of a whole process in ms."""
    devnull = os.open(os.devnull, os.O_RDWR)
    begin = time.perf_counter()
    child = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, devnull, fd) for fd in (0, 1, 2)]
    )
    _, status = os.waitpid(child, 0)
    took = time.perf_counter() - begin
    os.close(devnull)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return took * 1000


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


def anew(**chosen):
    """An empty ledger, and a service with those settings; its process."""
    systemctl("stop", SERVICE)
    for left in [*state.glob("*"), *disk.glob("workspace-*"), *disk.glob("*.yaml")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    configure(**chosen)
    systemctl("start", SERVICE)
    return main_pid()


def configure(**chosen):
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("".join(f"{name}: {value}\n" for name, value in chosen.items()))


def quiet():
    """Hours in which nothing starts: from two hours ago to ten hours on."""
    hour = time.localtime().tm_hour
    return f'["{(hour - 2) % 24:02}:00-{(hour + 10) % 24:02}:00"]'


def job(name, sheets, command, **more):
    """A job of that many sheets in order; `more` are lines of the job file in place of `sheet:` or beside it."""
    path = disk / f"{name}.yaml"
    sections = {
        "name": name,
        "workspace": f"./workspace-{name}",
        "backend": f"{{type: command, command: {command!r}, timeout_seconds: 60}}",
        "sheet": f"{{size: 1, total_items: {sheets}}}",
        "prompt": "{template: 'sheet {{ sheet_num }}'}",
        "pause_between_sheets_seconds": 0,
        **more,
    }
    path.write_text("".join(f"{key}: {value}\n" for key, value in sections.items()))
    return str(path)


def fan_out(name, width, command, slots):
    """1 sheet, then `width` of them at once as far as there are slots, then 1."""
    return job(
        name, 3, command,
        sheet=f"{{size: 1, total_items: 3, fan_out: {{2: {width}}}, dependencies: {{2: [1], 3: [2]}}}}",
        parallel=f"{{enabled: true, max_concurrent: {slots}}}",
    )


def submission(path):
    return [ctl, "run", "--detach", "--fresh", path]


def submit(path):
    told = subprocess.run(submission(path), capture_output=True, text=True)
    if told.returncode != 0:
        raise SystemExit(f"{path} was refused: {told.stdout}{told.stderr}")


def finished(name):
    run(ctl, "wait", name)


def stamping(path):
    """A session that writes when it began and when it ended, in microseconds."""
    return ["/bin/bash", "-c", f"echo b ${{EPOCHREALTIME/./}} >>{path}; echo e ${{EPOCHREALTIME/./}} >>{path}"]


def stamps(path):
    """When sessions began and when they ended, in ms."""
    lines = [line.split() for line in Path(path).read_text().splitlines()]
    return tuple([int(at) / 1000 for mark, at in lines if mark == which] for which in "be")


def gaps(path):
    """From each session's end to the next one's beginning, and from beginning to beginning, in ms."""
    begins, ends = stamps(path)
    return [b - e for e, b in zip(ends, begins[1:])], [b - a for a, b in zip(begins, begins[1:])]


def records(directory):
    """When the first launch order was written and, in order, when each exit record was, in s."""
    files = [Path(place) / name for place, _, names in os.walk(directory) for name in names]
    written = lambda name: sorted(file.stat().st_mtime for file in files if file.name.endswith(name))
    return written("launch")[0], written("stdout")


def rate(directory):
    """Sheets a second, from the first launch order to the last exit record."""
    began, ended = records(directory)
    return len(ended) / (ended[-1] - began)


def flat(what, directory):
    """The time of a sheet in the last tenth of many, beside that in the first."""
    began, ended = records(directory)
    tenth = len(ended) // 10
    first, last = ended[tenth] - began, ended[-1] - ended[-tenth - 1]
    figure(what, "as at its start", last / tenth * 1000, first / tenth * 1000, "ms", "bare: the same in the first tenth")


def main_pid():
    return int(show(SERVICE, "MainPID"))


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


def resident(pid, what="VmRSS"):
    """In MB; `VmHWM` is the most that it ever was."""
    return int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024 / 1e6


def size(*paths):
    return sum(
        file.stat().st_blocks * 512 for path in paths for file in Path(path).rglob("*") if file.is_file()
    )


def start_to_ready(unit):
    began, ready = (int(show(unit, f"{what}TimestampMonotonic")) for what in ("ExecMainStart", "ActiveEnter"))
    return (ready - began) / 1000


def restarts(times=5):
    """Median time from a new conductor's start to its READY."""
    ready = []
    for _ in range(times):
        systemctl("stop", SERVICE)
        systemctl("start", SERVICE)
        ready.append(start_to_ready(SERVICE))
    return middle(ready)


def bare_ready():
    """The same of a shell that says READY."""
    ready = []
    for number in range(5):
        run("systemd-run", "--user", "--quiet", f"--unit=notify-{number}", "--property=Type=notify",
            "--property=NotifyAccess=all", "/bin/sh", "-c", "systemd-notify --ready; exec sleep 60")
        ready.append(start_to_ready(f"notify-{number}.service"))
        systemctl("stop", f"notify-{number}.service")
    return middle(ready)


def bare_units(count, width, command):
    """Bare transient units with the same ExecStopPost; the directory of their files."""
    scratch = disk / "bare"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    run(str(bare), str(programs / "mozart-helper"), str(scratch), str(count), str(width), *command)
    return scratch


def one_call():
    return process(
        ["/usr/bin/busctl", "--user", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
         "GetId"]
    )


@part
def command_line():
    """The command line by itself."""
    version = [ctl, "--version"]
    figure("`mozartctl --version`, whole process", "≤ 5 ms", process(version), process(TRUE), "ms", "bare: /bin/true")
    figure("its peak memory", "≤ 10 MiB", peak_memory(version), peak_memory(TRUE), "MiB")


@part
def one_job():
    """One job of many sheets in order, alone on the machine."""
    sheets = 1000 // few
    pid = anew()
    before = written(pid)
    submit(job("many", sheets, stamping(disk / "stamps")))
    finished("many")
    time.sleep(1.5)  # the last checkpoint of a run may come a second after its end
    handed, dirtied = (after - earlier for after, earlier in zip(written(pid), before))
    mozart_gaps, mozart_cycles = gaps(disk / "stamps")
    bare_units(min(sheets, 300), 1, stamping(disk / "bare-stamps"))
    bare_gaps, bare_cycles = gaps(disk / "bare-stamps")
    figure(
        "one session's end → the next one's beginning", "≤ 20 ms", middle(mozart_gaps), middle(bare_gaps), "ms",
        "median; bare: the same command as transient units, one after the other",
    )
    figure(
        "a sheet beyond a bare unit with the same ExecStopPost", "≤ 5 ms",
        middle(mozart_cycles) - middle(bare_cycles), middle(bare_cycles), "ms", "bare: that unit's whole cycle",
    )
    tenth = max(10, sheets // 10)
    figure(
        f"a sheet at the end of a job of {sheets}", "as at its start",
        middle(mozart_cycles[-tenth:]), middle(mozart_cycles[:tenth]), "ms", "bare: the same at its start",
    )
    on_disk = size(state, disk / "workspace-many") / 1e6
    figure(
        f"written by mozartd for a job of {sheets} sheets", "≤ 20 MB", handed / 1e6, on_disk, "MB",
        "bare: what is on the disk afterwards, spool included",
    )
    figure("the same in whole pages of 4 KiB", "≤ 20 MB", dirtied / 1e6, on_disk, "MB")


@part
def ten_jobs():
    """Sheets that do nothing, ten at a time."""
    rates, bare_rates = [], []
    for _ in range(3):
        bare_rates.append(rate(bare_units(200, 10, TRUE)))
        anew(max_concurrent_jobs=10)
        for number in range(10):
            submit(job(f"job-{number}", 20, TRUE))
        for number in range(10):
            finished(f"job-{number}")
        rates.append(rate(state))
    figure(
        "10 jobs of 20 sheets that do nothing", "≥ 60 % of bare", middle(rates), middle(bare_rates), "sheets/s",
        f"bare: 200 units, 10 at a time; {rates} {bare_rates}",
    )


@part
def one_second():
    """Stages of sessions that take a second, beside the same as bare units."""
    command = [str(own / "session"), str(disk / "stamps"), "1000"]
    took, bare_took = [], []
    for _ in range(5):
        bare_took.append(sum(bare_stage(count, command) for count in (1, 50, 1)))
        anew(max_concurrent_sheets=10)
        (disk / "stamps").unlink(missing_ok=True)
        submit(fan_out("fan", 50, command, 10))
        finished("fan")
        took.append(passed())
    listed = lambda times: ", ".join(f"{time:.2f}" for time in times)
    note = f"bare: units one stage after the other, begun by hand; {listed(took)}, bare {listed(bare_took)}"
    figure("sessions of one second, 1 → 50 → 1 in 10 slots", "≤ 7.2 s", middle(took), middle(bare_took), "s", note, "{:.2f}")


def bare_stage(count, command):
    """Such a stage of bare units, ten at a time, in s."""
    (disk / "stamps").unlink(missing_ok=True)
    bare_units(count, 10, command)
    return passed()


def passed():
    """From the first session's beginning to the last one's end, in s."""
    begins, ends = stamps(disk / "stamps")
    return (max(ends) - min(begins)) / 1000


@part
def one_large():
    """A run of very many sheets."""
    sheets = 10_000 // few
    anew(max_concurrent_sheets=10)
    submit(fan_out("large", sheets, TRUE, 10))
    half = lambda: int(re.search(r'"sheets_done": *(\d+)', run(ctl, "status", "large", "--json")).group(1)) * 2 > sheets
    while not half():
        time.sleep(1)
    ready = restarts(3)
    figure(f"start → READY with a run of {sheets} sheets half done", "≤ 1 s", ready, bare_ready(), "ms", "bare: a shell that says READY")
    finished("large")
    pid = main_pid()
    flat(f"a sheet of a fan-out of {sheets}, 10 at a time", state)
    figure("the most memory of mozartd meanwhile", "≤ 60 MB", resident(pid, "VmHWM"), None, "MB")


@part
def many_jobs():
    """Very many runs: queued, at work, and finished."""
    jobs = 1000 // few
    anew(max_concurrent_sheets=10, max_concurrent_jobs=10, quiet_hours=quiet())
    paths = [job(f"job-{number}", 10, TRUE) for number in range(jobs)]
    took = [timed(submission(path)) for path in paths]
    tenth = jobs // 10
    figure(
        f"`mozartctl run` with {jobs * 10} sheets queued, whole process", "flat", middle(took[-tenth:]), middle(took[:tenth]), "ms",
        "bare: the same in the first tenth",
    )
    ready = restarts(5)
    figure(f"start → READY with {jobs * 10} live sheets in {jobs} runs", "≤ 1 s", ready, bare_ready(), "ms", "bare: a shell that says READY")
    configure(max_concurrent_sheets=10, max_concurrent_jobs=10)
    systemctl("reload", SERVICE)
    while show(SERVICE, "StatusText") != "idle":
        time.sleep(1)
    flat(f"a sheet of {jobs} jobs of 10, 10 at a time", state)
    figure("the most memory of mozartd meanwhile", "≤ 60 MB", resident(main_pid(), "VmHWM"), None, "MB")
    figure(
        f"start → READY with {jobs * 10} sheets in finished runs", "≤ 100 ms", restarts(), bare_ready(), "ms",
        "bare: a shell that says READY",
    )
    figure(
        f"`mozartctl status`, whole process, {jobs} runs in the ledger", "≤ 20 ms", process([ctl, "status"]), one_call(), "ms",
        "bare: busctl with one call",
    )


@part
def idle():
    """Nothing to do."""
    pid = anew()
    time.sleep(SETTLE_SECONDS)
    before = switches(pid)
    time.sleep(IDLE_SECONDS)
    awake = switches(pid) - before
    period = int(re.search(r"^WatchdogSec=(\d+)$", systemctl("cat", SERVICE), re.MULTILINE).group(1)) // 2
    pings = (SETTLE_SECONDS + IDLE_SECONDS) // period - SETTLE_SECONDS // period
    figure(f"wake-ups of idle mozartd in {IDLE_SECONDS} s", f"the watchdog's pings: {pings}", awake, None, "", show="{:.0f}")
    figure("its resident memory", "≤ 20 MB", resident(pid), None, "MB")


for name, measure in parts.items():
    if not asked or name in asked:
        measure()
print("| figure | goal | measured | bare cost | ratio |\n| --- | --- | --- | --- | --- |")
for row in rows:
    print("| " + " | ".join(cell.strip() for cell in row) + " |")
