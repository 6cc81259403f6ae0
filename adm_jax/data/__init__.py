"""Images for training: random-access sources, ADM's crops, and the pipeline over them."""
