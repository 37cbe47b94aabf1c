"""`srseg_doctor`: what this machine offers to srseg, and whether nnU-Net's folders can be used."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srseg.cli.run import run_command

PACKAGES = ("srseg", "torch", "nnunetv2", "numpy", "SimpleITK", "nibabel", "blosc2")
GIB = 1024**3


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog="srseg_doctor",
        description="Print versions, device, cores, memory and the state of the three nnU-Net "
        "folders.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_print_report, build_parser().parse_args(argv))


def _print_report(args: argparse.Namespace) -> None:
    report = examine()
    print(json.dumps(report, indent=2) if args.json else "\n".join(as_lines(report)))


def examine() -> dict[str, Any]:
    """Return the report: plain values only, so that it can be written as JSON.

    Keys: `versions`, `device`, `machine` (cores, memory in bytes), `folders`, `problems` (one
    sentence each for what keeps srseg from working here).
    """
    from srseg import environment

    device, problems = _examine_device()
    folders = {name: _examine_folder(name) for name in environment.FOLDER_VARIABLES}
    problems += [
        f"{name}: {entry['problem']}" for name, entry in folders.items() if entry["problem"]
    ]
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "platform": platform.platform(),
        "device": device,
        "machine": {
            "cores": environment.available_cores(),
            "memory_bytes": environment.available_memory(),
        },
        "folders": folders,
        "problems": problems,
    }


def as_lines(report: dict[str, Any]) -> list[str]:
    """Return the report as lines for people."""
    device, machine = report["device"], report["machine"]
    rows = [(name, version or "not installed") for name, version in report["versions"].items()]
    rows += [
        ("platform", report["platform"]),
        ("device", device["best"] or "none: torch cannot be imported"),
        ("CUDA", _cuda_line(device)),
        ("bfloat16", f"CPU {_yes(device['cpu_bf16'])}, CUDA {_yes(device['cuda_bf16'])}"),
        ("cores", f"{machine['cores']} may be used by this process"),
        ("memory", f"{machine['memory_bytes'] / GIB:.1f} GiB may be taken by this process"),
    ]
    rows += [(name, _folder_line(entry)) for name, entry in report["folders"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    problems = [f"problem: {problem}" for problem in report["problems"]]
    return [*lines, "", *(problems or ["no problem found"])]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _examine_device() -> tuple[dict[str, Any], list[str]]:
    """Return what torch can compute on, and what is wrong with it."""
    from srseg import environment

    device: dict[str, Any] = {
        "best": None,
        "cpu_bf16": environment.cpu_has_bf16(),
        "cuda": [],
        "cuda_version": None,
        "cuda_bf16": False,
        "torch_threads": None,
    }
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries does not load
        return device, [f"torch cannot be imported: {' '.join(str(error).split())}"]
    device["best"] = environment.resolve_device("auto")
    device["torch_threads"] = torch.get_num_threads()
    device["cuda_version"] = torch.version.cuda
    if torch.cuda.is_available():
        device["cuda_bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            device["cuda"].append(
                {"name": properties.name, "memory_bytes": properties.total_memory}
            )
    return device, []


def _examine_folder(variable: str) -> dict[str, Any]:
    """Return whether a folder variable is set, exists and can be written, with free bytes."""
    from srseg import environment

    path = environment.folder(variable)
    entry: dict[str, Any] = {
        "path": None if path is None else str(path),
        "set": path is not None,
        "exists": path is not None and path.is_dir(),
        "writable": False,
        "free_bytes": None,
        "problem": None,
    }
    if path is None:
        entry["problem"] = f"not set; for example: export {variable}=/data/{variable}"
    elif not entry["exists"] and variable != "nnUNet_raw" and path.parent.is_dir():
        entry["writable"] = _is_writable(path.parent)  # the first command makes the folder
        entry["problem"] = None if entry["writable"] else f"'{path}' cannot be made"
    elif not entry["exists"]:
        entry["problem"] = f"'{path}' is not an existing folder"
    else:
        entry["writable"] = _is_writable(path)
        entry["free_bytes"] = shutil.disk_usage(path).free
        if not entry["writable"] and variable != "nnUNet_raw":  # raw data is only read
            entry["problem"] = f"'{path}' cannot be written"
    return entry


def _is_writable(folder: Path) -> bool:
    """Return whether a file can be made in `folder`: permission bits alone do not tell."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _folder_line(entry: dict[str, Any]) -> str:
    if not entry["set"]:
        return "not set"
    if not entry["exists"]:
        return f"{entry['path']} (does not exist{' yet' if entry['writable'] else ''})"
    access = "writable" if entry["writable"] else "not writable"
    return f"{entry['path']} ({access}, {entry['free_bytes'] / GIB:.1f} GiB free)"


def _cuda_line(device: dict[str, Any]) -> str:
    if device["cuda_version"] is None:
        return "no: this torch is built without it"
    names = [f"{gpu['name']} ({gpu['memory_bytes'] / GIB:.0f} GiB)" for gpu in device["cuda"]]
    return f"{device['cuda_version']}, {', '.join(names) or 'but no GPU is seen'}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
