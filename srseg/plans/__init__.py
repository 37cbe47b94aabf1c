"""The plans: what the data asks for, in one readable file."""
