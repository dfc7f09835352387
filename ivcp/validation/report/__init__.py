"""What validation found, as numbers and as a page."""
