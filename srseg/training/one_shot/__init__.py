"""One labelled atlas and images without labels (docs/methods.md)."""
