"""Writers of training-set layouts: the world in the folders that the sets of the papers use."""
