"""Draw a picture of boxes and arrows."""
