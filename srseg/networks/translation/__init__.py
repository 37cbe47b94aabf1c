"""Networks that translate an LR image of one domain into the look of another."""
