"""Loss terms: each named, weighted by a schedule and logged on its own."""
