"""Deformable registration: warping, and a network that registers as well as segments."""
