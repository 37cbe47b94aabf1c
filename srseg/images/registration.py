"""Rigid registration of two images by their intensities, the same every time.

Mattes' mutual information (IEEE TMI 2003) or correlation, from coarse to fine in mm, regular-step
gradient descent. The coarse level starts from several places and the best one goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import SimpleITK as sitk

from srseg.images.align import shared_share

logger = logging.getLogger(__name__)

METRICS = ("mi", "correlation")
STARTS = ("world", "geometry", "moments")
_HISTOGRAM_BINS = 32
_MOST_SAMPLES = 60_000  # of the metric, at the finest level
_FEWEST_VOXELS = 12  # along an axis, below which it is not shrunk
_LEVELS = (4.0, 2.0, 1.0)  # edge of a voxel, in finest fixed edges
_SMALLEST_STEP = 1e-4  # of an edge; the first step is one edge
_MIN_SHARED = 0.1  # of the smaller field of view, afterwards


@dataclass(frozen=True)
class RegistrationOptions:
    """How two images are registered.

    Attributes:
        metric: "mi" (any two contrasts) or "correlation" (one contrast, up to a linear map).
        start: "world" (the headers are about right), "geometry" (centres of the volumes meet),
            "moments" (centres of mass meet), or "auto": the one of these that ends best.
        seed: of the metric's samples.
        iterations: at most, per level.
    """

    metric: str = "mi"
    start: str = "auto"
    seed: int = 12345
    iterations: int = 200

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        for name, value, known in (
            ("metric", self.metric, METRICS),
            ("start", self.start, (*STARTS, "auto")),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} '{value}'; known: {', '.join(known)}.")
        if self.iterations < 1 or self.seed < 1:
            raise ValueError("iterations and seed must be whole numbers from 1 on.")


@dataclass(frozen=True)
class Registration:
    """What came out.

    Attributes:
        transform: maps fixed points to moving ones.
        metric: its value at the end (lower is better).
        start: where the best result began.
    """

    transform: sitk.Euler3DTransform
    metric: float
    start: str


def register(
    fixed: sitk.Image, moving: sitk.Image, options: RegistrationOptions | None = None
) -> Registration:
    """Return the rigid transform that lays a moving image onto a fixed one.

    Args:
        fixed: 3-D, one component.
        moving: likewise; its contrast may be another one ("mi").
        options: how.

    Raises:
        ValueError: if an image is constant, or the two do not overlap: in world coordinates where
            the start trusts them ("world", "auto"), and at the end.
    """
    options = options or RegistrationOptions()
    fixed, moving = (sitk.Cast(image, sitk.sitkFloat32) for image in (fixed, moving))
    for image, side in ((fixed, "fixed"), (moving, "moving")):
        values = sitk.GetArrayViewFromImage(image)
        if values.min() == values.max():
            raise ValueError(f"the {side} image is {values.flat[0]:g} everywhere.")
    if options.start in ("world", "auto") and shared_share(fixed, moving) == 0:
        raise ValueError(
            "the moving and the fixed image do not overlap in world coordinates; if they show the "
            "same body in two coordinate systems, start with the centres together (-init geometry "
            "or -init moments), or give landmarks."
        )
    edge_mm = min(fixed.GetSpacing())
    coarse, *finer = [
        tuple(_shrunk(image, factor * edge_mm) for image in (fixed, moving)) for factor in _LEVELS
    ]
    names = STARTS if options.start == "auto" else (options.start,)
    tried = {name: _level(*coarse, _start(fixed, moving, name), options) for name in names}
    found = {name: result for name, result in tried.items() if result is not None}
    if not found:
        raise ValueError(
            "the moving and the fixed image do not overlap enough to be registered; give another "
            "-init, or landmarks."
        )
    best = min(found, key=lambda name: found[name][1])
    transform, metric = found[best]
    for level in finer:
        refined = _level(*level, transform, options)
        transform, metric = refined or (transform, metric)
    shared = shared_share(fixed, moving, transform)
    if shared < _MIN_SHARED:
        raise ValueError(
            f"after the registration only {shared:.0%} of the smaller field of view overlap, at "
            f"least {_MIN_SHARED:.0%} is needed; the images do not fit each other, or need "
            f"another -init or landmarks."
        )
    return Registration(transform, metric, best)


def _start(fixed: sitk.Image, moving: sitk.Image, name: str) -> sitk.Euler3DTransform:
    if name == "world":
        transform = sitk.Euler3DTransform()
        middle = [(n - 1) / 2 for n in fixed.GetSize()]
        transform.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(middle))
        return transform
    kinds = sitk.CenteredTransformInitializerFilter
    kind = {"geometry": kinds.GEOMETRY, "moments": kinds.MOMENTS}[name]
    # Moments need non-negative weights, which CT has not.
    lifted = [sitk.Subtract(i, float(sitk.GetArrayViewFromImage(i).min())) for i in (fixed, moving)]
    found = sitk.CenteredTransformInitializer(*lifted, sitk.Euler3DTransform(), kind)
    return sitk.Euler3DTransform(found)


def _level(
    fixed: sitk.Image,
    moving: sitk.Image,
    start: sitk.Euler3DTransform,
    options: RegistrationOptions,
) -> tuple[sitk.Euler3DTransform, float] | None:
    """Return transform and metric of one level, None where too few samples meet."""
    method = sitk.ImageRegistrationMethod()
    if options.metric == "mi":
        method.SetMetricAsMattesMutualInformation(_HISTOGRAM_BINS)
    else:
        method.SetMetricAsCorrelation()
    share = min(1.0, _MOST_SAMPLES / math.prod(fixed.GetSize()))
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, options.seed)
    method.SetInterpolator(sitk.sitkLinear)
    edge_mm = min(fixed.GetSpacing())
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=edge_mm,
        minStep=_SMALLEST_STEP * edge_mm,
        numberOfIterations=options.iterations,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    transform = sitk.Euler3DTransform(start)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        with _one_thread():
            method.Execute(fixed, moving)
    except RuntimeError as error:  # "all samples map outside the moving image buffer"
        logger.debug("a start was given up: %s", " ".join(str(error).split())[-200:])
        return None
    value = float(method.GetMetricValue())
    return (transform, value) if math.isfinite(value) else None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let ITK compute with one thread: with more, sums of the metric differ from run to run.

    The registration's own setting does not reach its metric.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _shrunk(image: sitk.Image, edge_mm: float) -> sitk.Image:
    """Return an image whose voxels are about `edge_mm` long, smoothed as far as it is shrunk."""
    factors = [
        max(1, min(round(edge_mm / mm), n // _FEWEST_VOXELS))
        for mm, n in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    if max(factors) == 1:
        return image
    pairs = zip(factors, image.GetSpacing(), strict=True)
    variances = [0.25 * ((factor * mm) ** 2 - mm**2) for factor, mm in pairs]
    smooth = sitk.DiscreteGaussian(image, variances, 64, 0.01, True)
    return sitk.Shrink(smooth, factors)
