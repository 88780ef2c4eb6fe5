"""The commands of `magicseg`, by subject."""
