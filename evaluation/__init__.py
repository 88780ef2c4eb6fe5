"""Score a student on benchmarks and report what was measured."""
