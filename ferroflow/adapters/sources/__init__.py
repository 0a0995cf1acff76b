"""Where raw files come from, and how their bytes become tables without losing any."""
