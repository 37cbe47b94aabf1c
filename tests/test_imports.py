"""Importing srseg does nothing, and --help answers without torch, timm or torchvision."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import srseg

ROOT = Path(srseg.__file__).parent
MODULES = sorted(
    ".".join(("srseg", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
)
COMMANDS = (
    "plan_and_preprocess",
    "extract_fingerprint",
    "plan",
    "preprocess",
    "train",
    "predict",
    "register",
    "simulate",
    "convert_pairs",
    "align",
    "evaluate",
    "compare",
    "adapt",
    "doctor",
    "demo",
)
HEAVY = ("torch", "nnunetv2", "SimpleITK", "timm", "torchvision")
REPORT_HEAVY = (
    "\nimport sys\nloaded = [name for name in {heavy} if name in sys.modules]\n"
    "assert not loaded, loaded\n"
)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return the finished process of a fresh interpreter without the nnU-Net folders."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_module_imports_without_timm_and_torchvision():
    blocked = "\n".join(
        (
            "import importlib, sys",
            "sys.modules['timm'] = sys.modules['torchvision'] = None",
            f"for name in {MODULES!r}:",
            "    importlib.import_module(name)",
        )
    )
    finished = run_python(blocked, MPLBACKEND="Agg")
    assert finished.returncode == 0, finished.stderr


def test_importing_srseg_loads_nothing_and_prints_nothing():
    finished = run_python("import srseg" + REPORT_HEAVY.format(heavy=HEAVY))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == finished.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_torch(command: str):
    code = (
        f"from srseg.cli.{command} import main\n"
        "try:\n    status = main(['--help'])\n"
        "except SystemExit as end:\n    status = end.code\n"
        "assert status in (0, None), status\n" + REPORT_HEAVY.format(heavy=HEAVY)
    )
    finished = run_python(code)
    assert finished.returncode == 0, finished.stderr
    assert f"srseg_{command}" in finished.stdout
    assert "-h, --help" in finished.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_misspelt_flag_is_a_usage_error(command: str, capsys: pytest.CaptureFixture[str]):
    main = importlib.import_module(f"srseg.cli.{command}").main
    with pytest.raises(SystemExit) as end:
        main(["--no_such_flag"])
    assert end.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"srseg_{command}: error:")


def test_console_scripts_are_the_commands():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    ours = {point.name: point.value for point in scripts if point.name.startswith("srseg_")}
    assert ours == {f"srseg_{name}": f"srseg.cli.{name}:main" for name in COMMANDS}
