"""Repeatable measurements. Ratios come from one interleaved run, since machines are noisy; see docs/benchmarks.md."""
