"""What an object file says without loading it, and what would fail."""
