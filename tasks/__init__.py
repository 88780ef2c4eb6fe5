"""One module a stage: a Prefect task around one plain function."""
