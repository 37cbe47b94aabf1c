"""Every shipped method trains, validates and predicts on the tiny dataset by the same commands."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from srseg.inference.predictor import Predictor
from srseg.training.method import known_methods, load_method
from tests.training.test_trainer import planned, trainer_for

__all__ = ["planned"]  # a fixture
NEED_MORE_DATA = {"BiJROS", "BiJROS_pretrain", "SRSegTrainer_semi"}  # images without labels
LOGGED_BESIDE = defaultdict(
    set,
    SRSegTrainerGAN={"adversarial", "discriminator", "score_real", "score_made"},
    SRSegTrainerBilevel={"ratio", "correction_norm"},
)


@pytest.mark.parametrize("name", sorted(set(known_methods()) - NEED_MORE_DATA))
def test_trains_and_predicts(planned, name):
    trainer = trainer_for(method=name, num_epochs=2, iterations_per_epoch=2)
    trainer.run_training()
    losses = trainer.logger.get_value("train_losses", None)
    assert np.isfinite(losses).all()
    logged = set().union(*trainer.logger.local_logger.get_value("train_terms", None))
    method = load_method(name)
    logged = {name.removeprefix("lower/").removeprefix("upper/") for name in logged}
    assert set(method.losses) <= logged
    assert logged - set(method.losses) <= LOGGED_BESIDE[method.trainer]
    folder = Path(trainer.output_folder_base)
    assert folder.name.startswith(f"{name}__")

    predictor = Predictor.from_model_folder(folder, device="cpu", use_mirroring=False)
    read = trainer.configuration_manager.as_read()
    image = np.random.default_rng(0).normal(size=(1, *read.patch_size)).astype(np.float32)
    logits, sr_image = predictor.predict_preprocessed(image)
    hr_shape = tuple(int(n) for n in trainer.configuration_manager.hr_patch_size)
    assert logits.shape[1:] == hr_shape
    if predictor.configuration_manager.configuration["architecture"]["arch_kwargs"]["sr_head"]:
        assert sr_image.shape == (1, *hr_shape)
    else:
        assert sr_image is None


def test_guidance_is_drawn_from_the_step_alone(planned):
    trainer = trainer_for(method="PFSeg")
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    masks = []
    for trainer.iteration in (*range(8), *range(8)):
        trainer._forward(batch)
        masks.append(batch["guidance_mask"].clone())
    assert all((a == b).all() for a, b in zip(masks[:8], masks[8:], strict=True))
    given = [bool(mask.any()) for mask in masks[:8]]
    assert any(given)
    assert not all(given)  # half of the batches go without
    trainer.network.eval()
    del batch["guidance_mask"]
    trainer._forward(batch)
    assert "guidance_mask" not in batch
