"""Starts, stops, kills and broken files at once, by chance; at the end the host is as it was."""
