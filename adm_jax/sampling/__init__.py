"""Solvers, spacings, guidance, the one scan, jobs of many images, the pipeline, export."""
