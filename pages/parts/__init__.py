"""What the pages share: frame, desk, cached readers, and the parts of the reading room."""
