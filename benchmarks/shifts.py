"""LR image files as another scanner would have made them: a simulated domain shift.

    python benchmarks/shifts.py -i LR -o SHIFTED -kind contrast [-strength 1] [-seed 0]

A scanner is the same for all cases: its curve and kernel are drawn from the seed. Each case then
differs a little from it, and has a bias field and noise of its own, all drawn from seed and case
name, so that a case is shifted alike wherever and with whatever others it is. Geometry is untouched
and values are written as float32.

| kind | what changes, at strength 1 |
|---|---|
| contrast | a monotone intensity curve, gamma 0.5 to 0.6 or 1.7 to 2 |
| tissue | a curve that is not monotone: mid-grey tissues change places, as between sequences |
| bias | a smooth factor, standard deviation 0.3 of its logarithm at a few knots |
| noise | Rician, standard deviation 5 % of the 99th percentile |
| kernel | a point spread: 1.5 voxels (FWHM) of more blur along two axes, sharper along the third |
| all | contrast, bias, kernel and noise one after the other, each at half strength |
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from srseg.degradation.noise import add_noise
from srseg.degradation.operators import FWHM_PER_SIGMA
from srseg.geometry.separable import apply_separable
from srseg.images.checks import read_images
from srseg.images.write import write_image
from srseg.preprocessing.case_files import files_by_case
from srseg.training.augmentation import bias_field, gaussian_matrix

ENDING = ".nii.gz"
_JITTER = 0.1  # by how much cases of one scanner differ
_BIAS_STD = 0.3
_NOISE_SHARE = 0.05
_FWHM_VOXELS = 1.5
_BUMP = 0.2  # of the range; the curve stops rising at about half of that
_BUMP_HEIGHT = 3 * np.sqrt(3) / 8  # of sin(2 pi v) sin(pi v)^2


class Scanner:
    """What a simulated scanner does to LR images.

    Args:
        kind: a key of `SHIFTS`.
        strength: 0 changes nothing, 1 is described above.
        seed: of the scanner and of its cases.
        fwhm_mm: of the added point spread, mm (Z, Y, X); negative sharpens. Only for "kernel" and
            "all"; drawn by default.

    Raises:
        ValueError: for an unknown kind, or a strength below 0.
    """

    def __init__(
        self,
        kind: str,
        *,
        strength: float = 1.0,
        seed: int = 0,
        fwhm_mm: Sequence[float] | None = None,
    ) -> None:
        if kind not in SHIFTS:
            raise ValueError(f"unknown shift '{kind}'; known: {', '.join(SHIFTS)}.")
        if not strength >= 0:
            raise ValueError(f"the strength must be 0 or more, got {strength:g}.")
        self.kind, self.strength, self.seed = kind, strength, seed
        draws = torch.rand(2, generator=seeded(seed, "scanner")).tolist()
        # away from 1 on one side or the other, evenly in the logarithm
        exponent = 0.53 + 0.16 * draws[0]
        self.log_gamma = exponent if draws[1] < 0.5 else -exponent
        self.sharp_axis = int(3 * draws[0])
        self.fwhm_mm = fwhm_mm

    def __call__(self, lr_image: np.ndarray, spacing: Sequence[float], case: str) -> np.ndarray:
        """Return the shifted image, float32.

        Args:
            lr_image: (C, z, y, x), raw; its minimum stands for no signal.
            spacing: mm (z, y, x).
            case: its name, which decides what is random.
        """
        image = torch.from_numpy(np.ascontiguousarray(lr_image, dtype=np.float32))
        generator = seeded(self.seed, self.kind, case)
        no_signal = image.amin((1, 2, 3), keepdim=True)
        background = image == no_signal  # masked air stays: cropping looks for it
        for name in MILD if self.kind == "all" else (self.kind,):
            strength = self.strength / 2 if self.kind == "all" else self.strength
            if strength > 0:
                shifted = SHIFTS[name](self, image - no_signal, spacing, strength, generator)
                image = torch.where(background, image, shifted + no_signal)
        return image.numpy()

    def jitter(self, generator: torch.Generator) -> float:
        """Return a factor around 1 by which this case differs from the scanner's others."""
        return 1 + _JITTER * (2 * float(torch.rand(1, generator=generator)) - 1)


def seeded(*words: object) -> torch.Generator:
    """Return a generator whose seed depends on all words, in whichever process."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _contrast(scanner, signal, spacing, strength, generator):
    high = _high(signal)
    gamma = np.exp(strength * scanner.log_gamma * scanner.jitter(generator))
    return high * (signal / high) ** gamma


def _tissue(scanner, signal, spacing, strength, generator):
    high = _high(signal)
    value = signal / high
    inner = value.clamp(0, 1)  # beyond it nothing changes, and at its ends slopes stay
    bump = torch.sin(2 * torch.pi * inner) * torch.sin(torch.pi * inner) ** 2 / _BUMP_HEIGHT
    return high * (value + _BUMP * strength * scanner.jitter(generator) * bump)


def _bias(scanner, signal, spacing, strength, generator):
    field = bias_field((1, *signal.shape[1:]), spacing, _BIAS_STD * strength, generator)
    return signal * field  # one coil for all channels


def _noise(scanner, signal, spacing, strength, generator):
    wanted = _NOISE_SHARE * strength * _high(signal)
    noisy = []
    for channel, std in zip(signal, wanted, strict=True):
        # `add_noise` counts in mean signals
        relative = float(std) / max(float(channel.mean()), 1e-12)
        noisy.append(
            add_noise(channel, kind="rician", std=relative, generator=generator, zero_signal=0.0)
        )
    return torch.stack(noisy)


def _kernel(scanner, signal, spacing, strength, generator):
    fwhm_mm = scanner.fwhm_mm
    if fwhm_mm is None:
        fwhm_mm = [_FWHM_VOXELS * mm for mm in spacing]
        fwhm_mm[scanner.sharp_axis] *= -1
    factor = strength * scanner.jitter(generator)
    matrices = [
        _point_spread(n, factor * wide / mm)
        for n, wide, mm in zip(signal.shape[1:], fwhm_mm, spacing, strict=True)
    ]
    return apply_separable(signal, matrices).clamp_(min=0)


SHIFTS: dict[str, Callable[..., torch.Tensor] | None] = {
    "contrast": _contrast,
    "tissue": _tissue,
    "bias": _bias,
    "noise": _noise,
    "kernel": _kernel,
    "all": None,
}
MILD = ("contrast", "bias", "kernel", "noise")  # in the order in which a scanner does it


def _high(signal: torch.Tensor) -> torch.Tensor:
    """Return the 99th percentile of each channel, (C, 1, 1, 1)."""
    values = np.percentile(signal.numpy(), 99, axis=(1, 2, 3), keepdims=True)
    return torch.from_numpy(np.maximum(values, 1e-12).astype(np.float32))


def _point_spread(n: int, fwhm_voxels: float) -> torch.Tensor | None:
    """Return the (n, n) matrix of a Gaussian; for a negative width of unsharp masking by it."""
    blur = gaussian_matrix(n, abs(fwhm_voxels) / FWHM_PER_SIGMA)
    if blur is None or fwhm_voxels > 0:
        return blur
    return 2 * torch.eye(n, dtype=blur.dtype) - blur


def shift_folder(source: Path, target: Path, scanner: Scanner) -> int:
    """Return how many cases of a folder were shifted; files keep their names.

    Raises:
        FileNotFoundError: if the folder does not exist or holds no `<case>_0000.nii.gz`.
        ValueError: if the output would overwrite the input.
    """
    cases = files_by_case(source, ENDING)
    if not cases:
        raise FileNotFoundError(f"{source} has no files named <case>_0000{ENDING}.")
    if source.resolve() == target.resolve():
        raise ValueError(f"the output folder {target} is the input folder; choose another one.")
    reader = SimpleITKIO()
    for case, files in cases.items():
        lr_image, properties = read_images(reader, files)
        shifted = scanner(lr_image, properties["spacing"], case)
        write_image(shifted, target / case, properties, reader_writer=reader, file_ending=ENDING)
    return len(cases)


def main(argv: Sequence[str] | None = None) -> None:
    """Shift a folder.

    Raises:
        ValueError: for an unknown kind or strength.
        FileNotFoundError: without images.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-i", type=Path, required=True, help="folder of <case>_0000.nii.gz files")
    parser.add_argument("-o", type=Path, required=True, help="output folder")
    parser.add_argument("-kind", required=True, help=", ".join(SHIFTS))
    parser.add_argument("-strength", type=float, default=1.0, help="1 as described; 0 is none (1)")
    parser.add_argument("-seed", type=int, default=0, help="another seed is another scanner (0)")
    parser.add_argument(
        "-fwhm_mm", type=float, nargs=3, metavar=("Z", "Y", "X"), help="of the kernel; < 0 sharpens"
    )
    args = parser.parse_args(argv)
    scanner = Scanner(args.kind, strength=args.strength, seed=args.seed, fwhm_mm=args.fwhm_mm)
    count = shift_folder(args.i, args.o, scanner)
    print(f"{count} images in {args.o}")


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"shifts: {error}")
