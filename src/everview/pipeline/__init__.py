"""Puts the rooms to work: frames through a network, one by one or all at once."""
