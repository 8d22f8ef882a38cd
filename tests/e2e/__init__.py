"""The whole stack, as a user starts it: real processes, the real engine, real SDKs."""
