"""Parts of the transformer: block, attention, rotary embedding."""
