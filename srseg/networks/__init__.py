"""Networks from the LR grid to HR logits and an SR image, rebuilt from the plans alone."""
