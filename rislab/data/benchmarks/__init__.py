"""One module a benchmark of open-vocabulary segmentation; see `rislab.data.benchmark_trees`."""
