"""Tools of tests and benchmarks: simulators, the suite for a GPU, workloads, a session without a network, streams."""
