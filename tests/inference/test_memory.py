"""Memory of a prediction does not hold its logits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from tests.images.readers import write_volume

ROOT = Path(__file__).parents[2]
PREDICT = """
import sys
from pathlib import Path
import torch
from srseg.networks.build import build_network
from tests.images.readers import SPACING
from tests.inference.known_networks import dataset_json, known_predictor
from tests.inference.model_folders import ARCHITECTURE

num_classes, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.manual_seed(0)
labels = {"background": 0, **{f"organ {i}": i for i in range(1, num_classes)}}
predictor = known_predictor(
    build_network(ARCHITECTURE, 1, num_classes),
    (1, 2, 2),
    hr_spacing=[SPACING[0], SPACING[1] / 2, SPACING[2] / 2],
    patch_size=(16, 64, 64),
    description=dataset_json(labels=labels),
    mirroring_axes=None,
    settings={"one_pass": True},
)
predictor.predict_files(folder / "in", folder / "out", show_progress=False)
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20)
"""


def peak_gib(num_classes: int, lr_shape: tuple[int, ...], folder: Path) -> float:
    """Return the largest resident set of a process that predicts one case from file to files."""
    (folder / "in").mkdir(parents=True)
    array = np.random.default_rng(0).normal(50, 10, lr_shape).astype(np.int16)
    write_volume(folder / "in/ct_0000.nii.gz", array)
    command = [sys.executable, "-c", PREDICT, str(num_classes), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    segmentation, _ = SimpleITKIO().read_seg(str(folder / "out/ct.nii.gz"))
    assert segmentation.shape[1:] == (lr_shape[0], 2 * lr_shape[1], 2 * lr_shape[2])
    return float(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
def test_118_classes_of_a_ct_take_less_than_3_gib(tmp_path):
    """64 slices of 512x512, whose float32 logits alone would take 7.9 GB."""
    assert peak_gib(118, (64, 256, 256), tmp_path) < 3


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_classes(tmp_path):
    """100 classes more would be 0.6 GiB of logits."""
    few, many = (peak_gib(n, (24, 128, 128), tmp_path / str(n)) for n in (4, 104))
    assert many < few + 0.15
