"""One comparison from names to files: train, predict, evaluate, summarise, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from srseg import environment
from srseg.evaluation.compare.cases import CompareCase
from srseg.evaluation.compare.groups import read_groups
from srseg.evaluation.compare.images import hr_inputs, with_lr_images
from srseg.evaluation.compare.interpolation import interpolated
from srseg.evaluation.compare.models import Model, times
from srseg.evaluation.compare.prediction import predicted
from srseg.evaluation.compare.records import (
    READS_HR,
    READS_LABELS,
    Comparison,
    Facts,
    Scores,
    Setting,
)
from srseg.evaluation.compare.request import CompareRequest
from srseg.evaluation.compare.scores import evaluated
from srseg.evaluation.compare.selection import (
    able_to_read,
    common_context,
    compared_methods,
    train_wanted,
    wanted_cases,
)
from srseg.evaluation.compare.summary import Summary, chosen_reference
from srseg.evaluation.compare.write import write_comparison
from srseg.evaluation.context import Context
from srseg.plans.datasets import dataset_name


def run_comparison(request: CompareRequest) -> tuple[Summary, list[Path]]:
    """Return the summary of a comparison and the files that were written.

    Raises:
        ValueError: for unknown names, or models that cannot be compared.
        FileNotFoundError: if no model is trained, or a file is missing.
        RuntimeError: if training, predicting or evaluating fails, in one sentence.
    """
    request = replace(request, device=environment.resolve_device(request.device))
    results = environment.required_folder("nnUNet_results")
    needs_data = request.on_fold or request.budget is not None
    place = environment.required_folder("nnUNet_preprocessed") if needs_data else results
    name = dataset_name(request.dataset, place)
    if request.budget is not None:
        train_wanted(request, results / name)
    models, interpolations = compared_methods(request, results / name)
    context = common_context(request, models, name)
    cases = wanted_cases(request, name, context)
    models = able_to_read(request, models, cases)
    groups = {case.name: case.name for case in cases}
    if request.groups is not None:
        groups = read_groups(request.groups, list(groups))
    setting = Setting(
        name,
        request.plans,
        request.configuration,
        request.fold,
        "validation" if request.on_fold else "files",
    )
    _check_reference(request, setting, models, interpolations)
    output = request.output
    if output is None:
        of_fold = f"{request.plans}_{request.configuration}_fold_{request.fold}"
        output = results / name / "compare" / of_fold
    methods = _scores(request, output, context, cases, models, interpolations)
    label_names = {str(label): text for label, text in context.label_names.items()}
    comparison = Comparison(setting, methods, label_names, groups)
    return write_comparison(comparison, output, request.reference)


def _check_reference(
    request: CompareRequest,
    setting: Setting,
    models: Sequence[Model],
    interpolations: Sequence[str],
) -> None:
    """Refuse a reference that is none before anything is predicted."""
    facts = {model.name: model.facts for model in models}
    facts |= dict.fromkeys(interpolations, Facts(READS_LABELS))
    not_yet = {name: Scores(known, {}) for name, known in facts.items()}
    chosen_reference(Comparison(setting, not_yet, {}), request.reference)


def _interpolation_facts(context: Context) -> Facts:
    plans, manager = context.plans_manager, context.configuration_manager
    hr_spacing = manager.hr_spacing
    return Facts(
        reads=READS_LABELS,
        scale=times(context.scale),
        hr_spacing_mm=times(plans.native(hr_spacing) if len(hr_spacing) == 3 else hr_spacing),
    )


def _scores(
    request: CompareRequest,
    output: Path,
    context: Context,
    cases: Sequence[CompareCase],
    models: Sequence[Model],
    interpolations: Sequence[str],
) -> dict[str, Scores]:
    """Return every method's facts and numbers; what an earlier run left in `output` is kept."""
    count = request.num_processes
    cases = with_lr_images(cases, context, output / "lr_images", count)
    lr_files: Mapping[str, Sequence[Path]] = {case.name: case.lr_images for case in cases}
    hr_files: Mapping[str, Sequence[Path]] = {}
    if any(model.facts.reads == READS_HR for model in models):
        hr_files = hr_inputs(cases, context, output / "hr_images", count)
    facts: dict[str, Facts] = {}
    for model in models:
        usage = predicted(
            model,
            hr_files if model.facts.reads == READS_HR else lr_files,
            output / "predictions" / model.name,
            device=request.device,
            use_mirroring=request.use_mirroring,
        )
        facts[model.name] = replace(model.facts, **asdict(usage))
    for name in interpolations:
        seconds = interpolated(name, cases, context, output / "predictions" / name, count)
        facts[name] = replace(_interpolation_facts(context), seconds_per_case=seconds)
    return {
        name: Scores(
            known,
            evaluated(
                cases, output / "predictions" / name, context, output / "scores" / name, count
            ),
        )
        for name, known in facts.items()
    }
