"""What the extension costs and whether it helps; see README.md."""
