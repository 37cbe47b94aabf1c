"""srseg: joint super-resolution and segmentation of medical images, in the manner of nnU-Net."""

__version__ = "0.1.0"
