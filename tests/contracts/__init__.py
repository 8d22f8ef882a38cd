"""What every broker and every store must keep, real or simulated: one text, all backends."""
