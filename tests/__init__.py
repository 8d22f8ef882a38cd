"""Unit tests mirror the tree; integration and end-to-end tests run against real parts."""
