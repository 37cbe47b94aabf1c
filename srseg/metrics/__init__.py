"""How good a segmentation or a super-resolved image is, on arrays."""
