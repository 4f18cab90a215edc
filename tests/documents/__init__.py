"""What the documents show, read as a reader reads it. CONTRIBUTING.md has the notes that may stand before a block."""
