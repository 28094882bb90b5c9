"""The root key, and the labels' and files' keys below it."""
