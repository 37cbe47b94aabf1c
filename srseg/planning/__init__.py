"""From a dataset's fingerprint to its plans."""
