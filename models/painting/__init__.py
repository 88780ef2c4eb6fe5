"""Painting: pairs of images from pairs of texts."""
