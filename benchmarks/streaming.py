"""Peak memory and time of a streamed prediction against the same from full logits.

    python benchmarks/streaming.py -lr_shape 96 128 128 -scale 2 2 2 -classes 25

Both go from one preprocessed LR array to labels and SR image on the native HR grid, in processes
of their own, in turn. "streamed" is what `srseg_predict` does; "full logits" is what it does for
`--save_probabilities`, less the probabilities. Weights are drawn, nothing is read or written.
Memory is the process's largest resident set; what it was before the prediction stands beside it.
CPU seconds hold all threads: on a machine with other load they tell more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from math import prod
from typing import Any

MODES = ("streamed", "full logits")
_MEGA = 2**20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-lr_shape", type=int, nargs=3, default=[96, 128, 128])
    parser.add_argument("-scale", type=int, nargs=3, default=[2, 2, 2])
    parser.add_argument("-classes", type=int, default=25, help="with background (25)")
    parser.add_argument("-features", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("-hr_width", type=int, default=16)
    parser.add_argument("-patch", type=int, nargs=3, help="go in tiles of this LR size")
    parser.add_argument("--blend_results", action="store_true", help="of tiles, on the HR grid")
    parser.add_argument("-folds", type=int, default=1)
    parser.add_argument("-flips", type=int, default=0, help="axes to mirror along (0)")
    parser.add_argument("-native", type=float, default=1, help="native voxels per planned one (1)")
    parser.add_argument("-box_mb", type=int, help="memory of one box, instead of the default")
    parser.add_argument("-modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("-threads", type=int, default=2)
    parser.add_argument("-rounds", type=int, default=3)
    parser.add_argument("-child", choices=MODES, help=argparse.SUPPRESS)
    return parser.parse_args()


def _predictor(args: argparse.Namespace) -> Any:
    """Return a predictor of a network with drawn weights."""
    import torch

    from srseg.inference.forward import PredictionSettings
    from srseg.inference.predictor import Predictor
    from srseg.networks.build import build_network
    from srseg.plans.managers import SRSegPlansManager

    stages = len(args.features)
    architecture = {
        "network_class_name": "srseg.networks.joint_unet.JointUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": args.features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            "scale": args.scale,
            "hr_width": args.hr_width,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    configuration = {
        "patch_size": args.patch or args.lr_shape,
        "batch_size": 2,
        "spacing": [1.0] * 3,
        "hr_spacing": [1 / s for s in args.scale],
        "scale": args.scale,
        "degradation": {},
        "patch_free": args.patch is None,
        "architecture": architecture,
    }
    plans = {
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
    }
    dataset_json = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"label {i}": i for i in range(1, args.classes)}},
        "file_ending": ".nii.gz",
    }
    torch.manual_seed(0)
    network = build_network(architecture, 1, args.classes)
    folds = [{k: v.clone() for k, v in network.state_dict().items()} for _ in range(args.folds)]
    plans_manager = SRSegPlansManager(plans)
    return Predictor(
        network,
        plans_manager,
        plans_manager.get_configuration("3d_fullres"),
        dataset_json,
        weights=folds,
        mirroring_axes=range(args.flips),
        settings=PredictionSettings(device="cpu"),
    )


def _case(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return a preprocessed LR image and its properties in HR geometry."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lr_image = torch.randn(1, *args.lr_shape, generator=generator)
    native_lr = [round(n * args.native) for n in args.lr_shape]
    shape = [n * s for n, s in zip(native_lr, args.scale, strict=True)]
    frame: dict[str, Any] = {"slope": [0.01], "intercept": [0.0]}
    if args.native != 1:
        from srseg.geometry.separable import resample

        frame |= {"native_lr": resample(lr_image, native_lr).numpy(), "lr_shape": args.lr_shape}
    return lr_image, {
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
        "spacing": [1.0] * 3,
        "srseg": frame,
    }


def _measure(args: argparse.Namespace) -> dict[str, float]:
    """Return what one prediction in this process takes."""
    import torch

    from srseg.inference import native_grid

    torch.set_num_threads(args.threads)
    if args.box_mb:
        native_grid._BOX_BYTES = args.box_mb * _MEGA
    predictor = _predictor(args)
    predictor._forward.blend_features = not args.blend_results
    lr_image, hr_properties = _case(args)
    before, begin, cpu = _peak_mb(), time.perf_counter(), time.process_time()
    if args.child == "streamed":
        prediction = predictor.predict_to_native_grid(lr_image, hr_properties)
    else:
        prediction = native_grid.to_native_grid(
            *predictor.predict_preprocessed(lr_image),
            hr_properties,
            predictor.plans_manager,
            predictor.label_manager,
        )
    return {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "output_mb": (prediction.segmentation.nbytes + prediction.sr_image.nbytes) / _MEGA,
    }


def _peak_mb() -> float:
    """Return the largest resident set so far; `ru_maxrss` would begin at the parent's."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _in_process(mode: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "-child", mode]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{mode} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every mode in turn and print a markdown table of medians."""
    args = _arguments()
    if args.child:
        print(json.dumps(_measure(args)))
        return
    hr_shape = [n * s for n, s in zip(args.lr_shape, args.scale, strict=True)]
    logits_mb = 4 * args.classes * prod(hr_shape) / _MEGA
    print(
        f"LR {args.lr_shape} to HR {hr_shape}, {args.classes} classes (logits {logits_mb:.0f} MB), "
        f"trunk {args.features}, HR width {args.hr_width}, {args.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    taken: dict[str, list[dict[str, float]]] = {mode: [] for mode in args.modes}
    for number in range(args.rounds):
        for mode in args.modes if number % 2 == 0 else args.modes[::-1]:
            taken[mode].append(_in_process(mode, args))
            print(f"round {number + 1}, {mode}: {taken[mode][-1]}", file=sys.stderr, flush=True)
    print("| prediction | s | CPU s | peak MB | of it before | of it the result |")
    print("|---|---|---|---|---|---|")
    names = ("seconds", "cpu_seconds", "peak_mb", "before_mb", "output_mb")
    for mode, runs in taken.items():
        medians = [statistics.median(run[name] for run in runs) for name in names]
        cells = [*(f"{value:.1f}" for value in medians[:2]), *(f"{m:.0f}" for m in medians[2:])]
        print(f"| {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
