"""The gateway: its modules one by one, and the whole of it over real connections on a real SQLite broker."""
