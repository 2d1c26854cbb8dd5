"""LightningDataModules: a benchmark or a training set with its splits, loaders and evaluation."""
