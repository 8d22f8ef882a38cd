"""The writing halves of the brokers."""
