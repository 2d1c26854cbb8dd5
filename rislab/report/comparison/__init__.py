"""One report over all finished tables and matrices: methods by benchmarks beside what papers report, claims, cost."""
