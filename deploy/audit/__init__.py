"""`flagmeter audit`: what the markers prove, and the two ways to mend what they show."""
