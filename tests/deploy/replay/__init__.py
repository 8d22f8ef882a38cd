"""Putting rejected rows back."""
