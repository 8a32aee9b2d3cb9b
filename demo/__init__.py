"""`make demo`: two virtual machines, each in its own cell, and what an admin wants to see of it."""
