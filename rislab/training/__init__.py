"""One trial, from config to metrics: the LightningCLI, checkpoints that survive, scores that add up."""
