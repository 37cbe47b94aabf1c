"""srseg: joint super-resolution and segmentation of medical images, self-configuring like nnU-Net."""

__version__ = "0.1.0"
