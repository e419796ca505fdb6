"""Runs that can be trusted: predict, store, score, write down."""
