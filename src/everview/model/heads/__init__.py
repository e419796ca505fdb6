"""Tokens to geometry: cameras, dense maps, tracks."""
