"""Benchmarks: readers of official layouts, one file each; `registry` knows them all."""
