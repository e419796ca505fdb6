"""Weights: names, files and licences of parameters that somebody trained."""
