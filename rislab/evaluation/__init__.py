"""How benchmarks are scored: one object a protocol, and the arithmetic of its results, which needs no torch."""
