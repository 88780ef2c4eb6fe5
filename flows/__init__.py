"""What runs, in which order: run parameters, flows, command line."""
