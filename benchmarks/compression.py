"""CPU time and size of predicted files by compression level.

    python benchmarks/compression.py OUT [-cases 4] [-ending .nii.gz]

OUT is an output folder of `srseg_predict`: label maps, and SR images in `sr/`. Each file is read
and written again at every level, the way predictions are; "ITK" is SimpleITK's own compression,
for label maps by nnU-Net's writer. CPU time is of this process, on one thread, the least of
`-rounds`; other load on the machine hardly changes it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.images.compression import LEVELS
from srseg.images.write import stored_dtype, write_image, write_segmentation
from srseg.images.writers import write_itk

ITK = "ITK"
_MEGA = 2**20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="output folder of srseg_predict")
    parser.add_argument("-cases", type=int, default=4, help="the first so many (4)")
    parser.add_argument("-levels", type=int, nargs="+", default=list(LEVELS))
    parser.add_argument("-ending", default=".nii.gz", help="of the files, old and new (.nii.gz)")
    parser.add_argument("-rounds", type=int, default=3)
    return parser.parse_args()


def writer(file: Path, folder: Path, ending: str) -> Callable[[int | str], object]:
    """Return what writes the content of `file` into `folder` at a level, or as `ITK` does.

    A file in a folder `sr` is an image, any other a label map.
    """
    reader = SimpleITKIO()
    if file.parent.name == "sr":
        array, properties = reader.read_images([str(file)])
        own = {
            "reader_writer": reader,
            "file_ending": ending,
            "reference_dtype": stored_dtype(file),
        }
        stored = array.astype(stored_dtype(file))
        return lambda level: (
            write_itk(stored, folder / f"itk{ending}", properties)
            if level == ITK
            else write_image(array, folder / "image", properties, compression=level, **own)
        )
    labels, properties = reader.read_seg(str(file))
    target, own = folder / f"labels{ending}", {"reader_writer": reader}
    return lambda level: (
        reader.write_seg(labels[0], str(folder / f"itk{ending}"), properties)
        if level == ITK
        else write_segmentation(labels, target, properties, compression=level, **own)
    )


def measure(file: Path, level: int | str, options: argparse.Namespace) -> tuple[float, int]:
    """Return the least CPU seconds of writing the content of `file`, and the bytes written."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        write = writer(file, Path(folder), options.ending)
        for _ in range(options.rounds):
            begin = time.process_time()
            write(level)
            seconds.append(time.process_time() - begin)
        size = sum(written.stat().st_size for written in Path(folder).iterdir())
    return min(seconds), size


def stored_megabytes(files: list[Path]) -> float:
    """Return the MiB of the files' voxels, uncompressed."""
    images = [sitk.ReadImage(str(file)) for file in files]
    voxels = (image.GetNumberOfPixels() * image.GetSizeOfPixelComponent() for image in images)
    return sum(voxels) / _MEGA


def main() -> None:
    """Measure and print a markdown table."""
    options = _arguments()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    print("| files | MiB of voxels | level | CPU ms per MiB of voxels | MiB of files | share |")
    print("|---|---|---|---|---|---|")
    for kind, folder in (("label maps", options.out), ("SR images", options.out / "sr")):
        files = sorted(folder.glob(f"*{options.ending}"))[: options.cases]
        if not files:
            raise FileNotFoundError(f"there are no {options.ending} files in {folder}.")
        voxels = stored_megabytes(files)
        for level in (ITK, *options.levels):
            taken = [measure(file, level, options) for file in files]
            seconds, size = (sum(part) for part in zip(*taken, strict=True))
            size /= _MEGA
            print(
                f"| {len(files)} {kind} | {voxels:.1f} | {level} | {1000 * seconds / voxels:.1f} "
                f"| {size:.2f} | {size / voxels:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
