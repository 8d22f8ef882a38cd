"""Tests of how flagmeter runs."""
