"""`flagmeter replay`: what could not be stored is put back after a fix, once."""
