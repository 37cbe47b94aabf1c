"""From raw files to LR/HR/mask triplets on disk, and from an LR file to what the network reads."""
