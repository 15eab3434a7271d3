"""The quota engine's second shell: beside an existing Kubernetes, which stores, schedules and runs.

What it decides is the engine's (``quota/``).  What it does there: admission policies keep the gate on (:mod:`policies`), a
ledger written by compare-and-swap keeps two operators from admitting twice, and gates come off after that.
"""
