"""Training of adapters: unpaired translation of target images to the source domain's look."""
