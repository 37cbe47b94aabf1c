"""srseg_train DATASET CONFIGURATION FOLD: train one fold and validate it on whole cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from srseg.cli.run import quick_imports, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; single dash takes a value, double dash is a switch (nnU-Net's dialect)."""
    parser = argparse.ArgumentParser(prog="srseg_train", description=__doc__)
    add = parser.add_argument
    add("dataset", help="dataset id or name, for example 4 or Dataset004_Hippocampus")
    add("configuration", help="3d_fullres, 3d_patchfree or 2d")
    add("fold", help="fold of the cross-validation, a number from 0, or all")
    add("-tr", default="SRSegTrainer", metavar="METHOD", help="method, its .json or nnUNetTrainer")
    add("-p", "-plans_name", default="srsegPlans", metavar="PLANS", help="plans (srsegPlans)")
    add("-device", default="auto", help="auto, cuda, cpu or mps (auto: the best there is)")
    add("-num_gpus", type=int, default=1, help="GPUs for one training (DDP)")
    add("-num_epochs", type=int, help="epochs (1000)")
    add("-iterations_per_epoch", type=int, help="steps per epoch (250; 100 on a CPU)")
    add(
        "-time_budget",
        type=float,
        metavar="MINUTES",
        help="training time; the learning rate follows it; final validation is not counted",
    )
    add("-batch_size", type=int, help="instead of the planned one (a CPU takes less)")
    add("-num_workers", type=int, help="loader processes; 0 loads in this process")
    add("-precision", help="fp32, bf16 or fp16 (fp16 on CUDA, bf16 on CPUs that have it)")
    add("-seed", type=int, default=12345, help="seed of weights and batches (12345)")
    add("-pretrained_weights", metavar="FILE", help="checkpoint to start from, ours or nnU-Net's")
    add(
        "-encoder",
        metavar="FILE",
        help="encoder that never changes: a checkpoint's or, with --trust, a module of your own by "
        "import path, package.module:Class",
    )
    add("--trust", action="store_true", help="run the code that -encoder names by import path")
    add(
        "--npz",
        "--save_probabilities",
        dest="npz",
        action="store_true",
        help="save validation probabilities",
    )
    run = parser.add_mutually_exclusive_group()
    run.add_argument("--c", action="store_true", help="continue from the latest checkpoint")
    run.add_argument("--val", action="store_true", help="only validate")
    add("--val_best", action="store_true", help="validate checkpoint_best")
    add("--disable_checkpointing", action="store_true", help="write no checkpoints")
    add("--verbose", action="store_true", help="say more; show tracebacks")
    return parser


def _train(args: argparse.Namespace) -> int:
    with quick_imports():
        from srseg.training.run import TrainingRequest, run_training

    run_training(
        TrainingRequest(
            dataset=args.dataset,
            configuration=args.configuration,
            fold=args.fold,
            method=args.tr,
            plans_name=args.p,
            device=args.device,
            num_gpus=args.num_gpus,
            num_epochs=args.num_epochs,
            iterations_per_epoch=args.iterations_per_epoch,
            time_budget_minutes=args.time_budget,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            precision=args.precision,
            seed=args.seed,
            pretrained_weights=args.pretrained_weights,
            encoder=args.encoder,
            trust=args.trust,
            continue_training=args.c,
            only_validate=args.val,
            validate_best=args.val_best,
            save_probabilities=args.npz,
            disable_checkpointing=args.disable_checkpointing,
        )
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(_train, build_parser().parse_args(argv))
