"""The embedded store: ClickHouse's engine (chDB) behind ClickHouse's HTTP interface, a process of its own.

`python -m deploy.store --data-dir D --port 8123` runs it; `app.py` is the front, `engine.py` alone imports chDB.
"""
