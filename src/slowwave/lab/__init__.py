"""What needs a checkout: benchmarks, figures, probes, plots, the demo."""
