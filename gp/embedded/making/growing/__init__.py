"""The recipe of the embedded base: a smaller one goes on, with more layers, sizes, images and kinds."""
