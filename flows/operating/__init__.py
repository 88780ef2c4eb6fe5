"""Running the engine on a machine: server, workers, deployments, and what looks after them."""
