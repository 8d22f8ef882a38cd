"""HTTP in, broker out: what SDKs post is checked, appended durably, and only then answered with a 2xx.

Stateless: any number of gateways may stand beside each other.
"""
