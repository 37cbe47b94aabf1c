"""Reading, checking, moving and writing images; the only part that knows SimpleITK."""
