"""Scaphoid's tests: one file per module, the pages, and the dashboard in a real browser."""
