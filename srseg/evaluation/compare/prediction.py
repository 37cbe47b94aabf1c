"""Every model predicts in a process of its own, so that what it takes can be measured."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from srseg.evaluation.compare.models import Model, file_digest
from srseg.evaluation.compare.stamp import complete, content_of, files_identity, stamped_folder
from srseg.planning.json_file import write_json

logger = logging.getLogger(__name__)

_MODULE = "srseg.evaluation.compare.predict_process"


@dataclass(frozen=True)
class Usage:
    """What predicting took.

    Attributes:
        seconds_per_case: from files to files, without starting and loading the model.
        peak_memory_gib: of main memory, of the whole process.
        peak_gpu_memory_gib: None without a GPU.
        device: that predicted, and whether test-time flips were averaged.
    """

    seconds_per_case: float
    peak_memory_gib: float
    peak_gpu_memory_gib: float | None
    device: str


def predicted(
    model: Model,
    inputs: Mapping[str, Sequence[Path]],
    folder: Path,
    *,
    device: str,
    use_mirroring: bool,
) -> Usage:
    """Return what it took to predict all cases into `folder`, now or in an earlier run.

    A folder that is complete, and was made from the same weights, settings and files, is left as it
    is; one that was interrupted goes on with the cases that it lacks.

    Args:
        model: trained.
        inputs: files that it reads, by case.
        folder: for `<case><ending>` and `sr/<case>_0000<ending>`.
        device: "cuda", "cpu" or "mps".
        use_mirroring: average over flips.

    Raises:
        RuntimeError: in one sentence, with what the process said.
    """
    files = [file for case in inputs.values() for file in case]
    identity = {
        "checkpoint": file_digest(model.checkpoint),
        "files": files_identity(files),
        "device": device,
        "use_mirroring": use_mirroring,
    }
    known = content_of(folder, identity)
    if known is not None:
        logger.info("%s has predicted all cases already.", model.name)
    else:
        logger.info("predicting with %s", model.name)
        stamped_folder(folder, identity)
        known = _run(
            model.name,
            {
                "model_folder": str(model.folder),
                "fold": model.fold,
                "checkpoint_name": model.checkpoint_name,
                "inputs": [[str(file) for file in case] for case in inputs.values()],
                "out_folder": str(folder),
                "device": device,
                "use_mirroring": use_mirroring,
            },
        )
        complete(folder, identity, known)
    return Usage(**known)


def _run(name: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage that a fresh process reports for a job."""
    with tempfile.TemporaryDirectory(prefix="srseg_compare_") as temporary:
        job_file, answer_file = Path(temporary) / "job.json", Path(temporary) / "answer.json"
        write_json({**job, "answer_file": str(answer_file)}, job_file)
        finished = subprocess.run([sys.executable, "-m", _MODULE, str(job_file)], check=False)
        if not answer_file.is_file():
            raise RuntimeError(
                f"the process that predicted {name} ended with status {finished.returncode} and "
                "no answer; the usual reason is too little memory."
            )
        answer = json.loads(answer_file.read_text(encoding="utf-8"))
    if "error" in answer:
        raise RuntimeError(f"{name} cannot predict: {answer['error']}")
    return asdict(Usage(**answer))
