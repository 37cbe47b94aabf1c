"""Where voxels lie, and the separable resampling that respects it."""
