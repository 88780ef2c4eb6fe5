"""Benchmarks: images with known truth, read from the folders that people have."""
