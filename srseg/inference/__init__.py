"""From LR files to HR segmentations and SR images with a trained model."""
