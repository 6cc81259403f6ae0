"""Meshes and shardings, several hosts, chips, compiled programs."""
