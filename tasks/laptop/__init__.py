"""laptop."""
