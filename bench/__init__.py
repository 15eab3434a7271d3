"""The benchmarks behind every published figure; ``python -m bench`` runs them and keeps the raw results."""
