"""The runtime: sources, sessions, pipeline, results and sinks. Never imports PyTorch."""
