"""Imports point downwards: a module may import only from layers below its own."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import srseg

ROOT = Path(srseg.__file__).parent
LAYERS = (  # lowest first; a name covers the module or the folder
    {"geometry", "environment"},
    {"plans", "images", "metrics", "degradation"},
    {"preprocessing", "networks"},
    {"planning", "inference"},
    {"training"},
    {"evaluation"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(ROOT.rglob("*.py"))
COMMANDS = [
    path
    for path in sorted((ROOT / "cli").glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]
NEVER = {"timm", "torchvision"}  # may be unusable beside a CPU torch


def imported_names(node: ast.AST, where: str) -> Iterator[str]:
    """Yield the full names of all imports below `node`, those inside functions included."""
    for child in ast.walk(node):
        if isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{where}: write imports in full"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)


def imported_parts(node: ast.AST, where: str) -> set[str]:
    """Return the first-level parts of srseg that the code below `node` imports."""
    names = (name.split(".") for name in imported_names(node, where))
    return {parts[1] for parts in names if parts[0] == "srseg" and len(parts) > 1} & RANK.keys()


def upward_imports(part: str, tree: ast.AST, where: str) -> set[str]:
    """Return the parts that `part` imports although they are not in a lower layer."""
    rank = RANK.get(part, -1)  # __init__.py, like a part without a layer, may import nothing
    return {name for name in imported_parts(tree, where) - {part} if RANK[name] >= rank}


def test_every_part_has_a_layer():
    parts = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in SOURCES}
    assert parts - {"__init__"} <= RANK.keys()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    upwards = upward_imports(part, tree, path.name)
    assert not upwards, f"{part} may not import {sorted(upwards)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_neither_timm_nor_torchvision_is_imported(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imported_names(tree, path.name)}
    assert not roots & NEVER


@pytest.mark.parametrize("path", COMMANDS, ids=lambda p: p.name)
def test_commands_import_lazily(path: Path):
    """At the top of a command's file only the standard library and `srseg.cli` are imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module(body=[node for node in tree.body if _is_import(node)], type_ignores=[])
    heavy = {
        name
        for name in imported_names(top, path.name)
        if not name.startswith("srseg.cli") and not _is_light(name)
    }
    assert not heavy, f"{path.name} must import {sorted(heavy)} inside its functions"


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_light(name: str) -> bool:
    return name.split(".")[0] in {*sys.stdlib_module_names, "__future__"} or name in {
        "srseg.__version__",
        "srseg.environment",
    }


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("inference", "def late():\n    from srseg import training\n", {"training"}),
        ("images", "import srseg.metrics.image\n", {"metrics"}),
        ("training", "from srseg.inference.predictor import Predictor\n", set()),
        ("images", "from srseg.images.write import write_image\n", set()),
        ("__init__", "import srseg.geometry\n", {"geometry"}),
    ],
)
def test_the_rule_itself(part: str, source: str, expected: set[str]):
    assert upward_imports(part, ast.parse(source), "seeded") == expected


def test_relative_imports_are_refused():
    with pytest.raises(AssertionError, match="write imports in full"):
        upward_imports("images", ast.parse("from . import write\n"), "seeded")
