"""The only code that turns an HR image into an LR one: physics per axis, in mm."""
