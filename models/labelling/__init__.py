"""Labelling: boxes and masks of the classes in an image."""
