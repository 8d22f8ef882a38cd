"""Broker in, hourly buckets out: each record of the log is in the store exactly once (EXACTLY_ONCE.md).

A chain of small parts: assign, read, declare, roll up, insert, settle, acknowledge.
"""
