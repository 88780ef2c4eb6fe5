"""Closed-set segmenters: one output a class, and no text."""
