"""The process that `prediction.py` starts for each model: predict, and report what it took."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srseg import environment
from srseg.planning.json_file import write_json

if TYPE_CHECKING:
    from srseg.evaluation.compare.stock import StockPredictor
    from srseg.inference.predictor import Predictor

_GIB = 2**30
_ERRORS = (ValueError, OSError, RuntimeError, LookupError, TypeError, ArithmeticError)


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """Predict what `job` names; return the fields of `prediction.Usage`.

    At least one case is predicted also where all are there already: an earlier process then ended
    before it could report its time.
    """
    import torch

    if job["device"] == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(environment.available_cores())
    predictor = _predictor(job)
    begin = time.perf_counter()
    cases = predictor.predict_files(job["inputs"], job["out_folder"], overwrite=False)
    if not cases:
        begin = time.perf_counter()
        cases = predictor.predict_files(job["inputs"][-1:], job["out_folder"])
    seconds = time.perf_counter() - begin
    gpu = torch.cuda.max_memory_allocated() / _GIB if job["device"] == "cuda" else None
    return {
        "seconds_per_case": seconds / len(cases),
        "peak_memory_gib": peak_memory_bytes() / _GIB,
        "peak_gpu_memory_gib": gpu,
        "device": f"{job['device']} {'with' if job['use_mirroring'] else 'without'} flips",
    }


def _predictor(job: Mapping[str, Any]) -> StockPredictor | Predictor:
    from srseg.inference.predictor import Predictor
    from srseg.plans.stock import is_stock_folder

    folder = Path(job["model_folder"])
    if is_stock_folder(folder):
        from srseg.evaluation.compare.stock import StockPredictor, open_stock_model

        model = open_stock_model(folder, job["fold"], job["checkpoint_name"])
        return StockPredictor(model, job["device"], job["use_mirroring"])
    return Predictor.from_model_folder(
        folder,
        [job["fold"]],
        checkpoint_name=job["checkpoint_name"],
        device=job["device"],
        use_mirroring=job["use_mirroring"],
    )


def peak_memory_bytes() -> int:
    """Return the most main memory that this process has held at once.

    Linux counts a started program's `ru_maxrss` from its parent's, so its own file is read there.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def main(job_file: str) -> int:
    """Run the job of a file and write its answer, or the error in one sentence."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    environment.prepare()
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    try:
        answer = run_job(job)
    except _ERRORS as error:
        answer = {"error": " ".join(str(error).split()) or type(error).__name__}
    write_json(answer, Path(job["answer_file"]))
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
