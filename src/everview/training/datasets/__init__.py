"""Training sets of the papers, our recordings and plain video: one schema, one way of sampling."""
