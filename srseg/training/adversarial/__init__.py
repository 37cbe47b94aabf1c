"""Adversarial training: a discriminator beside the network (docs/methods.md)."""
