"""What the end-to-end tests share: the whole stack as processes, and free ports."""
