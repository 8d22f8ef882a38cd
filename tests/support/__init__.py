"""What the tests of several packages share: processes, free ports, requests, and waiting for a condition."""
