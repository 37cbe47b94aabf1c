r"""What adaptation is worth when LR images come from another scanner: a report on real data.

    nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=... \
        python benchmarks/robustness.py -d 4 -o REPORT [-shifts none contrast ...]
            [-adapters none histogram ...] [-time_budget 5] [-threads 1]

A trained model (dataset, method, fold) meets LR images that `shifts.py` changed. Nothing is paired:

* the source domain is one half of the fold's training cases, degraded as in training,
* the target domain that an adapter sees is the *other* half, shifted, without labels,
* judged are the fold's validation cases, shifted, adapted to the source and predicted.

Every step is a command of its own (srseg_simulate, shifts.py, srseg_adapt, srseg_predict,
srseg_evaluate). Whatever is complete in REPORT is not computed again: run the same line to go on
after an interruption, or with more shifts or adapters. REPORT/robustness.csv and robustness.md hold
a row per combination: Dice (mean over cases and labels), PSNR and SSIM of the SR image against the
HR image of the *unshifted* scanner, and the gain in PSNR over cubic interpolation of the image that
was predicted from.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from few_labels import SPLITS_FILE, fold_of
from robustness_steps import command, linked, once, run
from robustness_tables import ADAPTERS, KNOWN, SHIFTS, means_of, write_tables

from srseg import environment
from srseg.planning.json_file import write_json
from srseg.planning.raw_dataset import RawDataset, find_raw_dataset

NONE = "none"
_SHIFT_SCRIPT = Path(__file__).with_name("shifts.py")


@dataclass(frozen=True)
class Report:
    """What is compared, and where everything lies.

    Attributes:
        folder: of the report.
        raw: the dataset.
        model_folder: trained on it.
        configuration: of the model.
        args: the command's arguments.
    """

    folder: Path
    raw: RawDataset
    model_folder: Path
    configuration: str
    args: argparse.Namespace

    def settings(self) -> dict[str, Any]:
        """Return what all results of one report share."""
        args = self.args
        return {
            "dataset": self.raw.name,
            "model": self.model_folder.name,
            "fold": args.fold,
            "checkpoint": args.chk,
            "strength": args.strength,
            "seed": args.seed,
            "test_time_flips": not args.disable_tta,
            "time_budget_minutes": args.time_budget,
            "num_steps": args.num_steps,
            "learning_rate": args.learning_rate,
            "max_cases": args.max_cases,
        }


def halves(train: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the training cases of the source and of the target domain; no case is in both.

    Raises:
        ValueError: with fewer than two cases.
    """
    if len(train) < 2:
        raise ValueError(
            f"two domains need at least two training cases, the fold has {len(train)}."
        )
    shuffled = sorted(train)
    random.Random(seed).shuffle(shuffled)
    middle = len(shuffled) // 2
    return sorted(shuffled[:middle]), sorted(shuffled[middle:])


def lr_images(report: Report, part: str, cases: Sequence[str]) -> Path:
    """Return the folder of LR images of some cases: simulated, or of real pairs their own."""
    ending = report.raw.dataset_json["file_ending"]
    files = {case: report.raw.cases[case] for case in cases}

    def named(attribute: str) -> dict[str, Path]:
        return {
            f"{case}_{channel:04d}{ending}": file
            for case, some in files.items()
            for channel, file in enumerate(getattr(some, attribute))
        }

    hr_folder = once(report.folder / "hr" / part, linked(named("images")))
    target = report.folder / "lr" / part
    if report.raw.is_paired:
        return once(target, linked(named("lr_images")))
    arguments = ["-m", report.model_folder, "-c", report.configuration, "-np", report.args.threads]

    def simulate(folder: Path) -> None:
        run(command("simulate", "-i", hr_folder, "-o", folder, *arguments), report)

    return once(target, simulate)


def shifted(report: Report, shift: str, part: str) -> Path:
    """Return the folder of LR images after a shift."""
    source = report.folder / "lr" / part
    if shift == NONE:
        return source
    how = ["-kind", shift, "-strength", report.args.strength, "-seed", report.args.seed]

    def make(folder: Path) -> None:
        words = [sys.executable, _SHIFT_SCRIPT, "-i", source, "-o", folder, *how]
        run([str(word) for word in words], report)

    return once(report.folder / "shifted" / shift / part, make)


def adapted(report: Report, shift: str, adapter: str) -> Path:
    """Return the folder of shifted validation images after adaptation to the source domain."""
    images = shifted(report, shift, "val")
    if adapter == NONE:
        return images
    place = report.folder / "adapted" / f"{shift}__{adapter}"
    source, target = report.folder / "lr" / "source", shifted(report, shift, "target")
    options = ["-seed", report.args.seed, "-device", report.args.device]
    for flag, value in (
        ("-time_budget", report.args.time_budget),
        ("-num_steps", report.args.num_steps),
        ("-learning_rate", report.args.learning_rate),
    ):
        options += [] if value is None else [flag, value]

    def train(folder: Path) -> None:
        domains = ["-source", source, "-target", target, "-method", adapter]
        run(command("adapt", "train", *domains, "-o", folder, *options), report)

    def apply(folder: Path) -> None:
        device = ["-device", report.args.device]
        run(command("adapt", "apply", "-i", images, "-o", folder, "-m", model, *device), report)

    model = once(place / "model", train)
    return once(place / "val", apply)


def combination(report: Report, shift: str, adapter: str) -> dict[str, Any]:
    """Return the row of one shift and one adapter; from its file where it is complete."""
    file = report.folder / "rows" / f"{shift}__{adapter}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    args = report.args
    images = adapted(report, shift, adapter)

    def predict(folder: Path) -> None:
        options = ["-m", report.model_folder, "-f", args.fold, "-chk", args.chk]
        options += ["-device", args.device, *(["--disable_tta"] if args.disable_tta else [])]
        run(command("predict", "-i", images, "-o", folder, *options), report)

    predictions = once(report.folder / "predictions" / f"{shift}__{adapter}", predict)
    options = ["-gt", report.folder / "labels", "-pred", predictions, "-np", args.threads]
    options += ["-hr_images", report.folder / "hr" / "val", "-lr_images", images]
    options += ["--resample_references"] if report.raw.is_paired else []
    run(command("evaluate", *options), report)
    row = {"shift": shift, "adapter": adapter, **means_of(predictions)}
    file.parent.mkdir(exist_ok=True)
    write_json(row, file)
    return row


def prepare(report: Report) -> None:
    """Write what all combinations share: settings, domains, labels.

    Raises:
        ValueError: if the folder holds a report with other settings.
    """
    report.folder.mkdir(parents=True, exist_ok=True)
    file, settings = report.folder / "settings.json", report.settings()
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            shown = ", ".join(f"{n} {before.get(n)} there, {settings[n]} now" for n in other)
            raise ValueError(f"{report.folder} holds a report with other settings: {shown}.")
    write_json(settings, file)
    args, raw = report.args, report.raw
    preprocessed = environment.required_folder("nnUNet_preprocessed")
    fold = fold_of(preprocessed / raw.name / SPLITS_FILE, list(raw.cases), args.fold)
    source, target = halves(fold["train"], args.seed)
    parts = {"source": source, "target": target, "val": sorted(fold["val"])}
    if args.max_cases is not None:
        parts = {part: cases[: args.max_cases] for part, cases in parts.items()}
    write_json(parts, report.folder / "cases.json")
    ending = raw.dataset_json["file_ending"]
    labels = {f"{case}{ending}": raw.cases[case].label for case in parts["val"]}
    once(report.folder / "labels", linked(labels))
    for part, cases in parts.items():
        lr_images(report, part, cases)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-d", required=True, help="dataset with a trained model")
    add("-o", type=Path, required=True, help="folder of the report")
    add("-tr", help="method of the model (the only one there is)")
    add("-p", help="plans of the model")
    add("-c", help="configuration of the model")
    add("-fold", type=int, default=0, help="of the model and its cases (0)")
    add("-chk", default="checkpoint_final.pth", help="checkpoint file")
    add("-shifts", nargs="+", default=list(SHIFTS), help=" ".join(SHIFTS))
    add("-adapters", nargs="+", default=list(ADAPTERS), help=" ".join(ADAPTERS))
    add("-strength", type=float, default=1.0, help="of the shifts (1)")
    add("-seed", type=int, default=0, help="of domains, shifts and adapters (0)")
    add("-time_budget", type=float, help="minutes of training, each adapter")
    add("-num_steps", type=int, help="training steps, each adapter")
    add("-learning_rate", type=float, help="of each adapter (srseg_adapt's own)")
    add("-max_cases", type=int, help="of each domain and of the validation: for a quick look")
    add("-device", default="cpu", help="of adapters and prediction (cpu)")
    add("-threads", type=int, default=1, help="OpenMP threads of every command (1)")
    add("--disable_tta", action="store_true", help="predict without test-time flips")
    args = parser.parse_args(argv)
    for flag, wished, known in (
        ("-shifts", args.shifts, KNOWN),
        ("-adapters", args.adapters, ADAPTERS),
    ):
        unknown = [name for name in wished if name not in known]
        if unknown:
            raise ValueError(f"unknown {flag} '{unknown[0]}'; known: {', '.join(known)}.")
    for flag, number in (("-max_cases", args.max_cases), ("-threads", args.threads)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} must be at least 1, got {number}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; return 1 if a combination failed, after all others.

    Raises:
        ValueError: for unknown names, or a report with other settings in the folder.
        FileNotFoundError: without a trained model.
        RuntimeError: if the domains cannot be made.
    """
    args = _arguments(argv)
    from srseg.inference.model_folder import find_model

    raw = find_raw_dataset(args.d)
    results = environment.required_folder("nnUNet_results")
    model = find_model(results, dataset=args.d, plans=args.p, configuration=args.c, method=args.tr)
    args.o = args.o.resolve()
    report = Report(args.o, raw, model, model.name.split("__")[2], args)
    prepare(report)
    failed = 0
    for shift in args.shifts:
        for adapter in args.adapters:
            try:
                row = combination(report, shift, adapter)
            except RuntimeError as error:
                failed += 1
                print(f"{shift}, {adapter}: {error}", file=sys.stderr, flush=True)
                continue
            print(f"{shift}, {adapter}: Dice {row['dice']:.4f}", flush=True)
            write_tables(report.folder, report.settings())
    print(f"{report.folder / 'robustness.md'}: {failed} combinations failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (FileNotFoundError, RuntimeError, ValueError) as error:
        sys.exit(f"robustness: {error}")
