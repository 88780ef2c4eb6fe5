"""Scoring: from a segmenter and a benchmark to numbers with their protocol."""
