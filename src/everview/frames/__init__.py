"""Pixels on their way to the network: files, videos, cameras in; frames out."""
