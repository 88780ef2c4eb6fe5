"""Train the student on committed shards."""
