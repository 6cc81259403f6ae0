"""Published models, folders of weights, their files; the reference's names and flags."""
