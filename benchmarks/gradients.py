"""How large each loss term's gradient is in each part of a joint network, unweighted.

    python benchmarks/gradients.py -d 4 -c 3d_fullres [-tr SRSegTrainer] [-chk FILE] [-batches 8]

Norms are medians over training batches, of a fresh network or of a checkpoint's; the cosine is
the mean between the first term's gradient and each other's. What the weights of the terms should
be follows from it: an optimiser like Adam scales by the sum of what a layer receives. Only layers
that every term reaches are compared. Needs a planned and preprocessed dataset.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections import defaultdict

PARTS = ("encoder", "decoder.stages", "hr_stage.upsample", "hr_stage.convs")


def main() -> None:
    """Print a markdown table: a row per part of the network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", required=True, help="dataset")
    parser.add_argument("-c", default="3d_fullres", help="configuration")
    parser.add_argument("-tr", default="SRSegTrainer", help="method name or file")
    parser.add_argument("-chk", help="checkpoint of that method; without it a fresh network")
    parser.add_argument("-batches", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results  # noqa: SIM112 (nnU-Net's name)
        print_table(*measured(options))


def measured(options: argparse.Namespace) -> tuple[list[str], dict, dict]:
    """Return the terms, (part, term) -> norms and (part, term) -> cosines, one per batch."""
    import torch

    from srseg.inference.model_folder import load_checkpoint
    from srseg.training.run import TrainingRequest, build_trainer

    request = TrainingRequest(
        dataset=options.d, configuration=options.c, fold=0, method=options.tr, device="cpu",
        num_workers=0, num_epochs=1, disable_checkpointing=True,
    )  # fmt: skip
    trainer = build_trainer(request, torch.device("cpu"))
    trainer.on_train_start()
    if options.chk:
        weights = load_checkpoint(options.chk)["network_weights"]
        trainer.unwrapped_network().load_state_dict(weights)
    trainer.network.train()
    terms = list(trainer.loss.terms)
    norms, cosines = defaultdict(list), defaultdict(list)
    for _ in range(options.batches):
        batch = trainer._to_device(next(trainer.dataloader_train))
        gradients = [gradient_of(trainer, term, batch) for term in terms]
        for part in PARTS:
            layers = [n for n in gradients[0] if n.startswith(part)]
            layers = [n for n in layers if all(n in of_term for of_term in gradients)]
            if not layers:
                continue
            flat = [torch.cat([g[n].flatten() for n in layers]) for g in gradients]
            for term, vector in zip(terms, flat, strict=True):
                norms[part, term].append(float(vector.norm()))
                cosine = torch.nn.functional.cosine_similarity(flat[0], vector, dim=0)
                cosines[part, term].append(float(cosine))
    return terms, norms, cosines


def gradient_of(trainer, term: str, batch: dict) -> dict:
    """Return parameter name -> gradient of one unweighted term."""
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.loss.terms[term](trainer._forward(batch), batch).backward()
    named = trainer.unwrapped_network().named_parameters()
    return {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def print_table(terms: list[str], norms: dict, cosines: dict) -> None:
    """Print norms, their ratio to the first term's and cosines, a row per part."""
    first, *others = terms
    print(f"| part | {first} |" + "".join(f" {t} | ratio | cosine |" for t in others))
    print("|---|---|" + "---|---|---|" * len(others))
    for part in PARTS:
        if (part, first) not in norms:
            continue
        reference = statistics.median(norms[part, first])
        cells = [part, f"{reference:.3g}"]
        for term in others:
            norm = statistics.median(norms[part, term])
            ratio = f"{reference / norm:.3g}" if norm else "-"
            cells += [f"{norm:.3g}", ratio, f"{statistics.mean(cosines[part, term]):+.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
