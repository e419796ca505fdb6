"""The same integers on a GPU; run with `pytest -m gpu` where there is one."""

import pytest
import torch

from everview.model.network import build
from everview.model.presets import presets
from everview.quantization import kernels_used, quantize
from everview.quantization.hadamard import Rotation
from everview.quantization.linear import QuantizedLinear
from everview.quantization.smoothing import InputTransform
from everview.quantization.spec import parse_scheme

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4", "w4a16", "fp8"])
@pytest.mark.parametrize("rows", [1, 16, 17, 1041])
def test_a_layer_gives_what_the_reference_gives(scheme, rows):
    torch.manual_seed(0)
    transform = InputTransform(before=torch.rand(192) + 0.5, rotation=Rotation(None, 32))
    weight, bias = torch.randn(100, 192) / 14, torch.randn(100)
    layer = QuantizedLinear.of(weight, bias, parse_scheme(scheme), transform).execute_with()
    x = torch.randn(rows, 192)
    exact = layer.reference(x.double())
    moved = layer.to("cuda").execute_with(require_real=True)
    found = moved(x.cuda()).cpu().double()
    assert float((found - exact).norm() / exact.norm()) < 5e-3
    again = moved.to("cpu")
    assert float((again(x).double() - exact).norm() / exact.norm()) < 1e-3


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a16", "fp8"])
def test_a_network_gives_what_it_gives_on_a_cpu(scheme):
    network = build(presets["tiny"], seed=1)
    clips = list(torch.rand(4, 3, 3, 56, 84))
    made = quantize(network, scheme, clips)
    on_cpu = made(clips[0]).depth
    moved = made.to("cuda")
    assert all(kernel["is_real"] for kernel in kernels_used(moved).values())
    torch.testing.assert_close(moved(clips[0].cuda()).depth.cpu(), on_cpu, rtol=0.05, atol=0.05)
