"""Post-training quantization: QuantVGGT's method and its field, on integers that are integers."""

from everview.quantization.methods import METHODS as METHODS
from everview.quantization.methods import Method as Method
from everview.quantization.network import kernels_used as kernels_used
from everview.quantization.network import quantize as quantize
from everview.quantization.sampling import select_clips as select_clips
from everview.quantization.spec import SCHEMES as SCHEMES
