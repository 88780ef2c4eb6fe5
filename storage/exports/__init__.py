"""Exports: a dataset in the forms that other tools read."""
