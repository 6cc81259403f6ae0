"""Files, pixels, pictures, progress bars and downloads; knows nothing of diffusion."""
