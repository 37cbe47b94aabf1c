"""The names of nnU-Net 2.8 that srseg overrides or calls; a release that moves one shows here."""

import inspect

import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import LocalLogger, MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

SIGNATURES = [
    (nnUNetTrainer, "__init__", "self plans configuration fold dataset_json device"),
    (nnUNetTrainer, "initialize", "self"),
    (nnUNetTrainer, "_set_batch_size_and_oversample", "self"),
    (nnUNetTrainer, "_get_deep_supervision_scales", "self"),
    (nnUNetTrainer, "_build_loss", "self"),
    (nnUNetTrainer, "configure_optimizers", "self"),
    (nnUNetTrainer, "get_dataloaders", "self"),
    (nnUNetTrainer, "get_tr_and_val_datasets", "self"),
    (nnUNetTrainer, "do_split", "self"),
    (nnUNetTrainer, "on_train_start", "self"),
    (nnUNetTrainer, "on_epoch_start", "self"),
    (nnUNetTrainer, "on_validation_epoch_start", "self"),
    (nnUNetTrainer, "train_step", "self batch"),
    (nnUNetTrainer, "validation_step", "self batch"),
    (nnUNetTrainer, "on_train_epoch_end", "self train_outputs"),
    (nnUNetTrainer, "on_validation_epoch_end", "self val_outputs"),
    (nnUNetTrainer, "save_checkpoint", "self filename"),
    (nnUNetTrainer, "load_checkpoint", "self filename_or_checkpoint"),
    (nnUNetTrainer, "perform_actual_validation", "self save_probabilities"),
    (nnUNetTrainer, "set_deep_supervision_enabled", "self enabled"),
    (nnUNetTrainer, "plot_network_architecture", "self"),
    (nnUNetTrainer, "print_to_log_file", "self args also_print_to_console add_timestamp"),
    (
        nnUNetTrainer,
        "build_network_architecture",
        "plans_manager configuration_manager num_input_channels num_output_channels "
        "enable_deep_supervision",
    ),
    (LocalLogger, "log", "self key value epoch"),
    (LocalLogger, "plot_progress_png", "self output_folder"),
    (LocalLogger, "load_checkpoint", "self checkpoint"),
    (MetaLogger, "log", "self key value step"),
    (MetaLogger, "get_value", "self key step"),
    (PlansManager, "get_configuration", "self configuration_name"),
    (
        PlansManager,
        "_internal_resolve_configuration_inheritance",
        "self configuration_name visited",
    ),
    (ExperimentPlanner, "plan_experiment", "self"),
    (ExperimentPlanner, "save_plans", "self plans"),
    (
        ExperimentPlanner,
        "get_plans_for_configuration",
        "self spacing median_shape data_identifier approximate_n_voxels_dataset _cache",
    ),
    (DatasetFingerprintExtractor, "run", "self overwrite_existing"),
    (
        DefaultPreprocessor,
        "run_case",
        "self image_files seg_file plans_manager configuration_manager dataset_json",
    ),
    (
        DefaultPreprocessor,
        "run_case_npy",
        "self data seg properties plans_manager configuration_manager dataset_json",
    ),
    (nnUNetDatasetBlosc2, "load_case", "self identifier"),
    (nnUNetTrainer, "run_training", "self"),
    (
        nnUNetPredictor,
        "manual_initialization",
        "self network plans_manager configuration_manager parameters dataset_json trainer_name "
        "inference_allowed_mirroring_axes",
    ),
    (
        nnUNetPredictor,
        "predict_from_files_sequential",
        "self list_of_lists_or_source_folder output_folder_or_list_of_truncated_output_files "
        "save_probabilities overwrite folder_with_segs_from_prev_stage",
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "parameters"), SIGNATURES, ids=[f"{o.__name__}.{n}" for o, n, _ in SIGNATURES]
)
def test_signature_is_as_we_know_it(owner, name, parameters):
    function = inspect.unwrap(inspect.getattr_static(owner, name))
    function = getattr(function, "__func__", function)  # static methods
    assert list(inspect.signature(function).parameters) == parameters.split()


@pytest.mark.parametrize(
    "name", ["resampling_fn_data", "resampling_fn_seg", "pool_op_kernel_sizes", "batch_dice"]
)
def test_configuration_property_exists(name):
    assert isinstance(inspect.getattr_static(ConfigurationManager, name), property)


@pytest.mark.parametrize(
    "attribute",
    [
        "num_iterations_per_epoch",
        "num_val_iterations_per_epoch",
        "num_epochs",
        "_best_ema",
        "inference_allowed_mirroring_axes",
        "output_folder_base",
        "was_initialized",
        "disable_checkpointing",
        "my_init_kwargs",
        "save_every",
        "log_file",
    ],
)
def test_trainer_attribute_is_set_by_the_constructor(attribute):
    assert f"self.{attribute}" in inspect.getsource(nnUNetTrainer.__init__)
