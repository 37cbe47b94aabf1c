"""Training: batches, losses, trainers and the methods that name them."""
