"""A fuzzer for the decoders and for the gateway's port: `python -m tests.fuzz --target decode|http`.

Inputs come from a grammar of what is honestly sent, bent and broken; one that shows something new is kept and bent
further. What it found stands in `corpus/` and is replayed as tests.
"""
