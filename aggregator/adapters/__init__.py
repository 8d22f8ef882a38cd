"""The world outside: the broker's reading half, the store, the clock. Imported by `__main__`, deploy and tests only."""
