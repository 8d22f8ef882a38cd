"""The contracts between the services: what SDKs send, what the broker carries, what the tables hold.

Everything here is a plain value or a pure function; it imports nothing else of flagmeter.
"""
