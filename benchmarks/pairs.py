"""Two programs against each other: fresh processes in turn, their time and memory, one table row.

Both sides take turns and swap who begins; what counts is the median of the rounds' ratios. Other
work on the machine slows threads that wait for each other out of all proportion, so a measurement
waits for quiet, and is made again when other processes took much of the machine meanwhile. Memory
is the proportional set size (a page that n processes map counts 1/n for each) summed over all
processes of the command, sampled from /proc, so Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

THEIRS, OURS = "nnU-Net", "srseg"
HEADER = (
    "| work | nnU-Net, s | srseg, s | times faster | CPU s, nnU-Net | CPU s, srseg | times less "
    "| peak MB, nnU-Net | peak MB, srseg | share | target | other work |\n" + "|---" * 12 + "|"
)
_SHORTEST_PAUSE = 0.02  # seconds between two samples
_SAMPLING_SHARE = 0.05  # of one core, at most
_FEWEST_SAMPLES = 3  # below, the peak of a short command is not known
QUIET = 0.1  # share of all cores that other processes may take
_patience = {"seconds": 60, "trials": 4}  # for quiet, before each trial; the quietest counts
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a command took; the sum of two is one after the other.

    Attributes:
        seconds: on the clock, from start to end.
        cpu_seconds: of the command and all children that it waited for.
        peak_bytes: largest sampled sum of proportional set sizes; 0 for a command that was over
            before there were samples enough.
        others: share of all cores that other processes took meanwhile.
        output: its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    others: float = 0.0
    output: str = ""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
            max(self.others, other.others),
            self.output + other.output,
        )

    def result(self) -> dict:
        """Return the JSON object in the last line of the output."""
        return json.loads(self.output.strip().splitlines()[-1])


def installed(command: str) -> str:
    """Return the path of a console script beside this Python.

    Raises:
        FileNotFoundError: if it is not installed there.
    """
    path = Path(sys.executable).parent / command
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not installed.")
    return str(path)


def variables(threads: int, **more: str | Path | int) -> dict[str, str]:
    """Return the environment of both sides: this one with `threads` OpenMP threads and `more`."""
    own = {name: str(value) for name, value in more.items()}
    return {**os.environ, "OMP_NUM_THREADS": str(threads), **own}


def never_wait() -> None:
    """From now on, measure once and at once: to try a script out, its figures mean nothing."""
    _patience.update(seconds=0, trials=1)


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Usage:
    """Run a command, again while others disturb it, and return what the quietest run took.

    Raises:
        RuntimeError: if it fails; the end of what it wrote is in the message.
    """
    quietest: Usage | None = None
    for _ in range(_patience["trials"]):
        _wait_for_quiet()
        usage = _measure_once(command, environment)
        if quietest is None or usage.others < quietest.others:
            quietest = usage
        if usage.others <= QUIET:
            break
    assert quietest is not None  # there is at least one trial
    return quietest


def _measure_once(command: Sequence[str], environment: Mapping[str, str] | None) -> Usage:
    """Run a command in a session of its own and return what it took."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start, busy = time.perf_counter(), _busy_seconds()
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=err, start_new_session=True
        )
        sampler = _Sampler(process.pid)
        try:
            _, status, used = os.wait4(process.pid, 0)
            seconds, busy = time.perf_counter() - start, _busy_seconds() - busy
        finally:
            sampler.stop()
            with contextlib.suppress(ProcessLookupError):  # nothing stays and slows the next one
                os.killpg(process.pid, signal.SIGKILL)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{words} ended with {process.returncode}:\n{''.join(texts)[-3000:]}")
    cpu_seconds = used.ru_utime + used.ru_stime
    others = max(0.0, (busy - cpu_seconds) / (seconds * (os.cpu_count() or 1)))
    return Usage(seconds, cpu_seconds, sampler.peak_bytes, others, texts[0])


def _busy_seconds() -> float:
    """Return the seconds that all cores together have computed; time taken by the host counts."""
    user, nice, system, _, _, *rest = map(int, _read("/proc/stat").split(maxsplit=9)[1:9])
    return (user + nice + system + sum(rest)) / _TICKS


def _wait_for_quiet() -> None:
    """Wait until other processes leave the cores alone for a second, or patience ends."""
    deadline = time.monotonic() + _patience["seconds"]
    while time.monotonic() < deadline:
        before = _busy_seconds()
        time.sleep(1)
        if _busy_seconds() - before <= QUIET * (os.cpu_count() or 1):
            return


class _Sampler(threading.Thread):
    """Samples the memory of a session until it is stopped."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._session, self._stopped = session, threading.Event()
        self._num_samples = 0
        self.start()

    def run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            begin = time.perf_counter()
            self.peak_bytes = max(self.peak_bytes, session_memory(self._session))
            self._num_samples += 1
            pause = max(_SHORTEST_PAUSE, (time.perf_counter() - begin) / _SAMPLING_SHARE)

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        if self._num_samples < _FEWEST_SAMPLES:
            self.peak_bytes = 0


def session_memory(session: int) -> int:
    """Return the bytes that all processes of a session take, shared pages shared out."""
    total = 0
    for pid, _ in _processes(session):
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * total


def session_cpu_seconds() -> float:
    """Return the CPU seconds so far of this process's session: its living processes."""
    session = os.getsid(0)
    return sum(int(f[11]) + int(f[12]) for _, f in _processes(session)) / _TICKS


def _processes(session: int) -> list[tuple[int, list[str]]]:
    """Return pid and the fields of /proc/pid/stat after the name, from the state on."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208  several times faster, and it is sampled often
        if name.isdigit():
            fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if len(fields) > 12 and int(fields[3]) == session:
                found.append((int(name), fields))
    return found


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has ended
        return ""


def alternate(
    sides: Mapping[str, Callable[[], Usage]], rounds: int, work: str = ""
) -> dict[str, list[Usage]]:
    """Return the usages of every side, one per round; in every second round the last begins."""
    # SIGTERM then ends what runs too. Not to be left behind: workers forked later inherit it, and
    # one that is terminated just before it waits for a lock would wait for ever.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    taken: dict[str, list[Usage]] = {name: [] for name in sides}
    try:
        for number in range(rounds):
            for name in list(sides) if number % 2 == 0 else reversed(sides):
                usage = sides[name]()
                taken[name].append(usage)
                print(
                    f"{work} {name}, round {number + 1}: {usage.seconds:.2f} s, "
                    f"{usage.cpu_seconds:.2f} s CPU, {usage.peak_bytes / 1e6:.0f} MB, other work "
                    f"{usage.others:.0%}",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        signal.signal(signal.SIGTERM, before)
    return taken


def median_ratio(upper: Sequence[float], lower: Sequence[float]) -> float:
    """Return the median over rounds of upper / lower."""
    return statistics.median(a / b for a, b in zip(upper, lower, strict=True))


def row(
    work: str,
    taken: Mapping[str, Sequence[Usage]],
    target: str,
    *,
    seconds: Callable[[Usage], float] = lambda usage: usage.seconds,
    cpu_seconds: Callable[[Usage], float] = lambda usage: usage.cpu_seconds,
) -> str:
    """Return a row of `HEADER`: medians of both sides and of their ratios.

    Args:
        work: what was done.
        taken: usages of `THEIRS` and `OURS`, one per round.
        target: the ratios aimed at, in words.
        seconds: the time of a usage, where it is not the whole command's.
        cpu_seconds: the same for CPU time.
    """
    cells = [work]
    for value, word in ((seconds, "{:.3g}"), (cpu_seconds, "{:.3g}")):
        theirs, ours = ([value(usage) for usage in taken[side]] for side in (THEIRS, OURS))
        cells += [word.format(statistics.median(side)) for side in (theirs, ours)]
        cells.append(f"**{median_ratio(theirs, ours):.2f}**")
    theirs, ours = ([usage.peak_bytes / 1e6 for usage in taken[side]] for side in (THEIRS, OURS))
    known = all(theirs + ours)
    cells += [f"{statistics.median(side):.0f}" if all(side) else "–" for side in (theirs, ours)]
    cells += [f"**{median_ratio(ours, theirs):.2f}**" if known else "–", target]
    cells.append(f"{max(usage.others for side in taken.values() for usage in side):.0%}")
    return "| " + " | ".join(cells) + " |"


def machine(threads: int) -> str:
    """Return machine, threads, versions and the load before, for the line above a table."""
    words = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    processor = words[0].partition(":")[2].strip() if words else platform.machine()
    cores = len(os.sched_getaffinity(0))
    bf16 = "with" if "avx512_bf16" in _read("/proc/cpuinfo") else "without"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "nnunetv2", "srseg"))
    return (
        f"{processor}, {cores} cores {bf16} avx512_bf16, OMP_NUM_THREADS={threads}, Python "
        f"{platform.python_version()}, {versions}{_commit()}; load before "
        f"{os.getloadavg()[0]:.1f}"
    )


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""
