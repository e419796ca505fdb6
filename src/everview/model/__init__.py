"""Everything with parameters: VGGT and StreamVGGT, and the stream through the causal one."""
