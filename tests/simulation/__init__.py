"""The path from broker to table on a seeded scheduler: the aggregator's own code over a simulated broker and store.

`python -m tests.simulation --seed N` repeats one run and prints its trace.
"""
