"""What a fuzzer reports: an input that broke a promise."""


class Finding(Exception):  # noqa: N818 - what it is, not that it failed
    """An input that broke a promise; the message says which."""
