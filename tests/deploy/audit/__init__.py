"""The audit, and what mends what it shows."""
