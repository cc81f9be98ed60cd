"""What tests and benchmarks share: simulators, the suite for a GPU, workloads, a session without a network, streams."""
