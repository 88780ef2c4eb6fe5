"""The explorer: a page of this machine over the samples of a dataset."""
