"""What this machine offers and where the nnU-Net folders are: the only reader of `os.environ`.

`prepare()` must run before nnunetv2 is imported: nnU-Net reads its worker counts at import.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
_LOADER_PROCESSES = "nnUNet_n_proc_DA"
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_CGROUP_USED = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def prepare() -> None:
    """Set nnU-Net's worker defaults from the cores this process may really use."""
    cores = str(available_cores())
    os.environ.setdefault("nnUNet_def_n_proc", cores)
    os.environ.setdefault(_LOADER_PROCESSES, cores)


@contextmanager
def loader_processes(count: int | None) -> Iterator[None]:
    """Give nnU-Net's own trainer `count` loader processes inside the block; None leaves them."""
    before = os.environ.get(_LOADER_PROCESSES)
    if count is not None:
        os.environ[_LOADER_PROCESSES] = str(count)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LOADER_PROCESSES, None)
        else:
            os.environ[_LOADER_PROCESSES] = before


def prepare_rendezvous() -> None:
    """Set where the processes of one DDP training on this machine meet."""
    os.environ.setdefault("MASTER_ADDR", "localhost")
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])


def folder(variable: str) -> Path | None:
    """Return the folder an environment variable names, or None where it is not set."""
    value = os.environ.get(variable)
    return Path(value) if value else None


def required_folder(variable: str) -> Path:
    """Return the folder an environment variable names.

    Raises:
        ValueError: if the variable is not set, or names something that is not a folder
            (`nnUNet_preprocessed` and `nnUNet_results` are made when their parent exists).
    """
    path = folder(variable)
    if path is None:
        raise ValueError(
            f"the environment variable {variable} is not set; set it to a folder, for example "
            f"export {variable}=/data/{variable}."
        )
    if path.is_dir():
        return path
    if variable != "nnUNet_raw" and not path.exists() and path.parent.is_dir():
        path.mkdir()
        return path
    raise ValueError(f"{variable} is set to '{path}', which is not an existing folder.")


def child_environment(root: Path) -> dict[str, str]:
    """Return the variables of a child process whose three nnU-Net folders lie in `root`."""
    folders = {variable: str(root / variable) for variable in FOLDER_VARIABLES}
    return {**os.environ, **folders}


def available_cores() -> int:
    """Return the cores this process may use: affinity and cgroup quota, not the host's count."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity call
        cores = os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max")
    if quota is not None and not quota.startswith("max"):
        allowed, period = (int(value) for value in quota.split()[:2])
        cores = min(cores, max(1, allowed // period))
    return max(1, cores)


def available_memory() -> int:
    """Return the bytes of memory this process may still take (cgroup-aware on Linux)."""
    free = [_memory_of_host()]
    for limit_file, used_file in zip(_CGROUP_LIMITS, _CGROUP_USED, strict=True):
        limit, used = _first_line(limit_file), _first_line(used_file)
        if limit is not None and used is not None and limit.isdigit():
            free.append(int(limit) - int(used))
    return max(0, min(free))


def worker_count(bytes_per_worker: int, wanted: int | None = None) -> int:
    """Return how many workers fit: cores (or `wanted`) and four fifths of the free memory."""
    by_memory = int(0.8 * available_memory() // max(1, bytes_per_worker))
    return max(1, min(wanted or available_cores(), by_memory))


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def resolve_device(name: str) -> str:
    """Return "cuda", "cpu" or "mps" for a `-device` value; "auto" takes the best there is.

    Raises:
        ValueError: if the device is unknown or not on this machine.
    """
    import torch  # only commands that compute need torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, there in present.items() if there)
    if name not in present:
        raise ValueError(f"unknown device '{name}'; known: auto, {', '.join(sorted(present))}.")
    if not present[name]:
        usable = ", ".join(device for device, there in present.items() if there)
        raise ValueError(f"device '{name}' was asked for, but this machine has only: {usable}.")
    return name


def _first_line(file: str) -> str | None:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _memory_of_host() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if ":" in line}
    return values.get("MemAvailable", values["MemTotal"])
