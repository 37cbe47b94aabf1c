"""Metrics of folders of predictions, with baselines, as tables and files."""
