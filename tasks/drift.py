"""Distances between what a model was trained on and what a run counted: how much a column changed."""
