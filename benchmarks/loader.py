"""Triplets per second of the training loader, for one preprocessed folder and patch.

    python benchmarks/loader.py FOLDER -patch_size 20 28 20 -plans srsegPlans.json -c 3d_fullres

Without `-plans` the default MR degradation for `-scale` and `-hr_spacing` is used. `--profile`
lists the costliest calls of one process.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from srseg.degradation.degradation import Degradation, degradation_from_plans
from srseg.degradation.spec import default_degradation
from srseg.plans.managers import load_plans
from srseg.preprocessing.dataset import SRSegDataset
from srseg.training.loader import BatchSource, make_loader


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a preprocessed configuration")
    parser.add_argument("-patch_size", type=int, nargs="+", required=True, help="LR voxels")
    parser.add_argument("-plans", help="srsegPlans.json, for the degradation")
    parser.add_argument("-c", default="3d_fullres", help="configuration of the plans")
    parser.add_argument("-scale", type=int, nargs=3, default=(2, 2, 2))
    parser.add_argument("-hr_spacing", type=float, nargs=3, default=(1.0, 1.0, 1.0))
    parser.add_argument("-num_labels", type=int, default=2, help="foreground labels")
    parser.add_argument("-batch_size", type=int, default=2)
    parser.add_argument("-mode", choices=("augment", "matched"), default="augment")
    parser.add_argument("-batches", type=int, default=200)
    parser.add_argument("-workers", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--no_augmentation", action="store_true")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def _source(args: argparse.Namespace) -> BatchSource:
    if args.plans is None:
        spec = default_degradation("MR", args.hr_spacing, args.scale, multislice=False)
        degradation = Degradation(spec, args.scale, args.hr_spacing)
    else:
        configuration = load_plans(args.plans).get_configuration(args.c)
        degradation = degradation_from_plans(configuration)
    labels = {"background": 0, **{f"label {i}": i for i in range(1, args.num_labels + 1)}}
    return BatchSource(
        dataset=SRSegDataset(args.folder),
        lr_patch_size=args.patch_size,
        scale_3d=degradation.scale,
        batch_size=args.batch_size,
        label_manager=LabelManager(labels, None),
        degradation=degradation,
        deep_supervision_scales=[[1.0 / 2**i] * len(args.patch_size) for i in range(3)],
        mode=args.mode,
        augmentation=None if args.no_augmentation else {},
        mirror_axes=range(len(args.patch_size)),
    )


def _profile(source: BatchSource, num_batches: int) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in make_loader(source, start=0, stop=num_batches, num_workers=0):
        pass
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    args = _arguments()
    source = _source(args)
    for _ in make_loader(source, start=0, stop=20, num_workers=0):
        pass  # caches of matrices and of the file system
    if args.profile:
        _profile(source, args.batches)
        return
    print(f"LR patch {args.patch_size}, batch {args.batch_size}, mode {args.mode}")
    print("workers  triplets/s  wall ms  own CPU ms per triplet")
    for num_workers in args.workers:
        loader = make_loader(source, start=0, stop=args.batches + 1, num_workers=num_workers)
        next(loader)  # workers are up
        begin, own_begin = time.perf_counter(), time.process_time()
        for _ in loader:
            pass
        seconds, own = time.perf_counter() - begin, time.process_time() - own_begin
        triplets = args.batches * args.batch_size
        print(
            f"{num_workers:7d}  {triplets / seconds:10.0f}  {1000 * seconds / triplets:7.1f}  "
            f"{1000 * own / triplets:.1f}"
        )


if __name__ == "__main__":
    main()
