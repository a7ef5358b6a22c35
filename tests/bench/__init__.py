"""The benchmark: our servers beside their peers, on one machine, in turn."""
