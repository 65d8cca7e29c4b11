"""Readers of official layouts and own folders, packed HDF5, and a procedural set."""
