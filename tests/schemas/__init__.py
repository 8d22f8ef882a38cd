"""Tests of `schemas`: one file for each module, and one for the recorded answers."""
