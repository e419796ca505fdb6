"""Post-training quantization: QuantVGGT's method and its field, on integers that are integers."""
