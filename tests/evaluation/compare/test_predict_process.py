"""What the predicting process reports, also when it cannot predict."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from srseg.evaluation.compare import prediction
from srseg.evaluation.compare.predict_process import main


def test_peak_memory_is_that_of_the_process_alone():
    """Its parent may have held more; a peak stays when what was held is given back."""
    held = np.ones(64 * 2**20)  # 512 MiB in this process
    code = (
        "import numpy as np\n"
        "from srseg.evaluation.compare.predict_process import peak_memory_bytes\n"
        "before = peak_memory_bytes()\nblock = np.ones(25 * 2**20)\ndel block\n"
        "print(before, peak_memory_bytes())"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    before, after = (int(number) for number in finished.stdout.split())
    assert before < 400 * 2**20 < held.nbytes
    assert 190 * 2**20 < after - before < 240 * 2**20


def test_an_error_is_the_answer(tmp_path):
    job = {
        "model_folder": str(tmp_path / "none"),
        "fold": 0,
        "checkpoint_name": "checkpoint_final.pth",
        "inputs": [],
        "out_folder": str(tmp_path),
        "device": "cpu",
        "use_mirroring": True,
        "answer_file": str(tmp_path / "answer.json"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    assert main(str(tmp_path / "job.json")) == 1
    answer = json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))
    assert "none is not a folder" in answer["error"]
    with pytest.raises(RuntimeError, match="A cannot predict: .*none is not a folder"):
        prediction._run("A", job)


def test_a_process_that_dies_is_named(monkeypatch):
    monkeypatch.setattr(prediction, "_MODULE", "srseg.no_such_module")
    with pytest.raises(RuntimeError, match="predicted A ended with status 1 and no answer"):
        prediction._run("A", {})
