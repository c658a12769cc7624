"""Images to segments with an exported bundle; needs no PyTorch."""
