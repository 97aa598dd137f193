"""The recipe of the second embedded base: the first one goes on, with more layers, sizes, images and kinds."""
