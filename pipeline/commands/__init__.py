"""The commands: options, text and JSON."""
