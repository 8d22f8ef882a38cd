"""How flagmeter runs: settings, logging, the command line and the embedded stack.

It may import every service; no service imports it but through its own `__main__`.
"""

__version__ = "0.1.0"
